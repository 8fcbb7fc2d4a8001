"""What a build's query reads of its stream, as Postgres says; deployments that were given up."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("builds", sa.Column("reads", ARRAY(sa.Text)), schema="refold")
    op.add_column("deployments", sa.Column("given_up_at", sa.DateTime(timezone=True)), schema="refold")
