"""Room in the log is prepared by the largest statements of producers, which are noted."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("stored", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        schema="refold",
        comment="Statements that brought many events at once: room is prepared for the next of them.",
    )
    op.create_index("batches_by_time", "batches", ["at"], schema="refold")
