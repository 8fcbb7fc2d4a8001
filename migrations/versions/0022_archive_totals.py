"""Running totals of the archive and of purges."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint(op.f("totals_what"), "totals", schema="refold", type_="check")
    op.create_check_constraint(
        op.f("totals_what"),
        "totals",
        "what IN ('duplicates', 'rejected', 'healed', 'incidents', 'archive')",
        schema="refold",
    )
