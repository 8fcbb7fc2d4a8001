"""Sinks read their queues behind the last message that was delivered, and find unknown slices by index."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "sink_states",
        sa.Column(
            "passed",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Number of a message: none waits up to it, or will.",
        ),
        schema="refold",
    )
    op.create_index(
        "sink_checksums_unknown",
        "sink_checksums",
        ["sink_id", "slice"],
        unique=False,
        schema="refold",
        postgresql_where=sa.text("rows IS NULL"),
    )
