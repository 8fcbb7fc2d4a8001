"""Traces: which sampled trace appended which events."""

import sqlalchemy as sa
from alembic import op

from refold.store.schema.tables import Xid8

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "traces",
        sa.Column("txid", Xid8(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("first_position", sa.BigInteger(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("trace_id", sa.Uuid(), nullable=False),
        sa.Column("span_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "recorded_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("txid", "position", name=op.f("traces_pkey")),
        schema="refold",
        comment="Statements that appended events in a sampled trace: a row for each.",
    )
    op.create_index("traces_by_trace", "traces", ["trace_id"], unique=False, schema="refold")
    op.create_index("traces_by_time", "traces", ["recorded_at"], unique=False, schema="refold", postgresql_using="brin")
    op.add_column(
        "settings",
        sa.Column("trace_days", sa.Integer(), server_default=sa.text("7"), nullable=False),
        schema="refold",
    )
    op.create_check_constraint(op.f("settings_trace_days"), "settings", "trace_days > 0", schema="refold")
