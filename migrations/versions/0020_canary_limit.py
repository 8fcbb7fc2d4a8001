"""A limit on the percentage of readers who see a canary, which a person or a flag sets."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "canaries",
        sa.Column(
            "at_most",
            sa.Integer(),
            server_default=sa.text("100"),
            nullable=False,
            comment="Percent of readers that no step may exceed.",
        ),
        schema="refold",
    )
    op.add_column(
        "canaries",
        sa.Column("limited_at", sa.DateTime(timezone=True), nullable=True, comment="When this limit was set."),
        schema="refold",
    )
    op.create_check_constraint(op.f("canaries_at_most"), "canaries", "at_most BETWEEN 0 AND 100", schema="refold")
