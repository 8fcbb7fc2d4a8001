"""Which webhooks are told of which erasure."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "erasure_notices",
        sa.Column("erasure_id", sa.BigInteger(), nullable=False),
        sa.Column("sink_id", sa.BigInteger(), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=True, comment="When the receiver answered."),
        sa.Column("taken", sa.Boolean(), nullable=True, comment="Whether it confirmed; false: it refuses the notice."),
        sa.CheckConstraint("(told_at IS NULL) = (taken IS NULL)", name=op.f("erasure_notices_told")),
        sa.ForeignKeyConstraint(
            ["erasure_id"], ["refold.erasures.erasure_id"], name=op.f("erasure_notices_erasure_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["sink_id"], ["refold.sinks.sink_id"], name=op.f("erasure_notices_sink_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("sink_id", "erasure_id", name=op.f("erasure_notices_pkey")),
        schema="refold",
        comment="Which webhooks are told of which erasure, once each.",
    )
    op.create_index(
        "erasure_notices_waiting",
        "erasure_notices",
        ["sink_id"],
        schema="refold",
        postgresql_where=sa.text("told_at IS NULL"),
    )
