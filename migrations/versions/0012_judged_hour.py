"""Silence is judged once an hour, and read again only then."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "watch",
        sa.Column(
            "judged_until",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="End of the last hour that was judged for silence; an hour is judged once.",
        ),
        schema="refold",
    )
    op.create_table_comment(
        "watch",
        "How far the log has been read for the series, and how far they have been judged.",
        existing_comment="How far the log has been read for the series.",
        schema="refold",
    )
