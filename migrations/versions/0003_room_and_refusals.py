"""Where the log ended while statements ran, and why deployments were given up."""

import sqlalchemy as sa
from alembic import op

from refold.store.schema import tables

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "log_ends",
        sa.Column("log_end", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("reserve", sa.BigInteger(), nullable=True),
        sa.Column("passed", tables.Xid8(), nullable=True),
        sa.Column("ended", tables.Xid8(), nullable=False),
        sa.Column("drawn", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("log_end", name=op.f("log_ends_pkey")),
        schema="refold",
        comment="Former ends of the log's room: whether a statement failed there, and where earlier transactions end.",
    )
    op.create_index(
        "log_ends_open",
        "log_ends",
        ["log_end"],
        unique=False,
        schema="refold",
        postgresql_where=sa.text("reserve IS NOT NULL"),
    )
    op.create_index("log_ends_by_ended", "log_ends", ["ended", "log_end"], unique=False, schema="refold")
    op.add_column("deployments", sa.Column("given_up_because", sa.Text(), nullable=True), schema="refold")
    # It gets back the columns that it may see.
    op.execute("REVOKE SELECT ON refold.deployments FROM refold_observer")
