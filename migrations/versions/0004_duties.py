"""Duties: when each ran, their limits, and the figures of `refold report`."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "duties",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "started_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("pid", sa.Integer(), server_default=sa.text("pg_backend_pid()"), nullable=False),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("duties_pkey")),
        schema="refold",
        comment="When each self-healing duty ran last, in whichever worker, and how that ended.",
    )
    op.create_table(
        "duplicates",
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("folded", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        schema="refold",
        comment="Events that were refused because the log has them: a row a statement, later one a minute.",
    )
    op.create_index("duplicates_by_time", "duplicates", ["at"], schema="refold")
    op.create_table(
        "latencies",
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("build_id", sa.BigInteger(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("stage IN ('waiting', 'applying', 'fresh')", name=op.f("latencies_stage")),
        sa.PrimaryKeyConstraint("minute", "build_id", "stage", "bucket", name=op.f("latencies_pkey")),
        schema="refold",
        comment="How long events took to reach a build: counts in buckets on a log scale, see refold.sketch.",
    )
    op.add_column("builds", sa.Column("moved_at", sa.DateTime(timezone=True), nullable=True), schema="refold")
    for name, default in (
        ("lag_limit", 60),
        ("stalled_after", 300),
        ("held_back_after", 60),
        ("impure_sample", 20),
        ("latency_days", 30),
    ):
        column = sa.Column(name, sa.Integer(), server_default=sa.text(str(default)), nullable=False)
        op.add_column("settings", column, schema="refold")
    op.create_check_constraint(
        op.f("settings_limits"),
        "settings",
        "least(lag_limit, stalled_after, held_back_after, impure_sample) >= 0",
        schema="refold",
    )
    op.create_check_constraint(op.f("settings_latency_days"), "settings", "latency_days > 0", schema="refold")
