"""Views of analysts go live with the builds that they stand on."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "deployments",
        sa.Column(
            "views",
            postgresql.JSONB(),
            comment="analysts' views that go live in the same transaction: name and text of each file",
        ),
        schema="refold",
    )
