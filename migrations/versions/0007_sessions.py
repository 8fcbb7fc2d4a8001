"""Replica identities: a publication FOR ALL TABLES must not keep rows from being changed."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # It has no primary key: producers only insert. Tables of builds get theirs where they are made, and those that
    # are there already after this (refold.replicas).
    op.execute("ALTER TABLE refold.duplicates REPLICA IDENTITY FULL")
