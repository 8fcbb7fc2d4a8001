"""The cold ledger: ids of purged events."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "cold_ids",
        sa.Column("bucket", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("ids", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("digests", postgresql.ARRAY(sa.Integer()), nullable=False),
        sa.Column("checksum", sa.Uuid(), nullable=False),
        sa.CheckConstraint("cardinality(ids) = cardinality(digests)", name=op.f("cold_ids_pairs")),
        sa.PrimaryKeyConstraint("bucket", name=op.f("cold_ids_pkey")),
        schema="refold",
        comment="The cold ledger: ids of purged events, as hashes in buckets. An id in it is refused for ever.",
    )
    # Hashes do not compress.
    op.execute("ALTER TABLE refold.cold_ids ALTER ids SET STORAGE EXTERNAL, ALTER digests SET STORAGE EXTERNAL")
    op.create_table(
        "cold_ranges",
        sa.Column("lower_position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("upper_position", sa.BigInteger(), nullable=False),
        sa.Column("purged_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("copied_at", TIME, nullable=True),
        sa.Column("ids", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("sum", sa.Numeric(), server_default=sa.text("0"), nullable=False),
        sa.Column("released_to", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("lower_position < upper_position", name=op.f("cold_ranges_range")),
        sa.CheckConstraint("released_to BETWEEN lower_position AND upper_position", name=op.f("cold_ranges_released")),
        sa.CheckConstraint("copied_at IS NOT NULL OR released_to = lower_position", name=op.f("cold_ranges_copied")),
        sa.PrimaryKeyConstraint("lower_position", name=op.f("cold_ranges_pkey")),
        schema="refold",
        comment="Ranges of positions whose events were purged, and how far their ids have moved to the cold ledger.",
    )
    op.add_column("settings", sa.Column("cold_buckets", sa.Integer(), nullable=True), schema="refold")
    op.create_check_constraint(
        op.f("settings_cold_buckets"),
        "settings",
        "cold_buckets BETWEEN 16 AND 16777216 AND cold_buckets & (cold_buckets - 1) = 0",
        schema="refold",
    )
