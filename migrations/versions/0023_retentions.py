"""How long the rows of metrics are kept, and from which slice on a build has them."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("builds", sa.Column("retained_from", sa.Integer(), nullable=True), schema="refold")
    op.create_table(
        "retentions",
        sa.Column("projection", sa.Text(), nullable=False),
        sa.Column("keep", sa.Interval(), nullable=True, comment="How long its rows are kept, by the day of their key."),
        sa.Column("keep_from", sa.Date(), nullable=True, comment="The first day whose rows are kept."),
        sa.Column("set_by", sa.Text(), server_default=sa.text("session_user"), nullable=False),
        sa.Column("set_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.CheckConstraint("num_nonnulls(keep, keep_from) = 1", name=op.f("retentions_one")),
        sa.CheckConstraint("keep >= '1 day'::interval", name=op.f("retentions_keep")),
        sa.CheckConstraint("isfinite(keep_from)", name=op.f("retentions_keep_from")),
        sa.PrimaryKeyConstraint("projection", name=op.f("retentions_pkey")),
        schema="refold",
        comment="How long the rows of metrics are kept. Of a metric that is not here, all rows are.",
    )
