"""Replica identities: a publication FOR ALL TABLES must not keep rows from being changed. Quick audits in portions."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # It has no primary key: producers only insert. Tables of builds get theirs where they are made, and those that
    # are there already after this (refold.replicas).
    op.execute("ALTER TABLE refold.duplicates REPLICA IDENTITY FULL")
    op.create_table(
        "quick_audits",
        sa.Column("build_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("together", sa.Integer(), nullable=False),
        sa.Column("blocks", sa.BigInteger(), nullable=True),
        sa.Column("upto_slice", sa.Integer(), nullable=True),
        sa.Column("clean", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["build_id"], ["refold.builds.build_id"], name=op.f("quick_audits_build_id_fkey")),
        sa.PrimaryKeyConstraint("build_id", name=op.f("quick_audits_pkey")),
        schema="refold",
        comment="How far the quick audit has got of builds whose tables are too large for one statement.",
    )
