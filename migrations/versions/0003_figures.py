"""Kept figures, deep audits that resume, sealed slices of the log."""

import sqlalchemy as sa
from alembic import op

import refold.store.schema.tables

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "figures",
        sa.Column("build_id", sa.BigInteger(), nullable=False),
        sa.Column("relation", sa.SmallInteger(), nullable=False),
        sa.Column("slice", sa.Integer(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.Numeric(), nullable=False),
        sa.ForeignKeyConstraint(["build_id"], ["refold.builds.build_id"], name=op.f("figures_build_id_fkey")),
        sa.PrimaryKeyConstraint("build_id", "relation", "slice", name=op.f("figures_pkey")),
        schema="refold",
        postgresql_with={"fillfactor": "50"},
        comment="What a build has written into a slice, and read: rows, and the sum of hashes; moved with the rows.",
    )
    op.create_table(
        "audits",
        sa.Column("build_id", sa.BigInteger(), nullable=False),
        sa.Column("rolling", sa.Boolean(), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column(
            "stepped_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("upto_slice", sa.Integer(), nullable=True),
        sa.Column("steps", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["build_id"], ["refold.builds.build_id"], name=op.f("audits_build_id_fkey")),
        sa.PrimaryKeyConstraint("build_id", "rolling", name=op.f("audits_pkey")),
        schema="refold",
        comment="How far the deep audit of a build has got, so that it resumes.",
    )
    op.create_table(
        "sealed",
        sa.Column("slice", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("passed", refold.store.schema.tables.Xid8(), nullable=False),
        sa.Column("sealed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("events", sa.BigInteger(), nullable=True),
        sa.Column("upto", refold.store.schema.tables.Xid8(), nullable=True),
        sa.Column("ids", sa.Numeric(), nullable=True),
        sa.Column("hash", sa.Numeric(), nullable=True),
        sa.CheckConstraint("num_nulls(sealed_at, events, upto, ids, hash) IN (0, 5)", name=op.f("sealed_whole")),
        sa.PrimaryKeyConstraint("slice", name=op.f("sealed_pkey")),
        schema="refold",
        comment="Slices of the log to which nothing can be written any more: how many events, which, and their hashes.",
    )
    op.add_column(
        "settings",
        sa.Column("deep_audit_days", sa.Integer(), server_default=sa.text("7"), nullable=False),
        schema="refold",
    )
    op.create_check_constraint(op.f("settings_deep_audit_days"), "settings", "deep_audit_days > 0", schema="refold")
    # An audit finds a range of positions or of time in the log, a report what was recorded since. BRIN: next to
    # nothing on insert, for all of them grow with it; minmax_multi, so that a few late events do not make a range of
    # blocks span years.
    op.execute(
        "CREATE INDEX events_range ON refold.events"
        " USING brin (position, ts timestamptz_minmax_multi_ops, recorded_at)"
        " WITH (pages_per_range = 32, autosummarize = on)"
    )
