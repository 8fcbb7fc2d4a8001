"""Metrics are dropped and renamed."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint(op.f("deployments_kind"), "deployments", schema="refold")
    op.create_check_constraint(
        op.f("deployments_kind"),
        "deployments",
        "kind IN ('deploy', 'rebuild', 'promote', 'rollback', 'drop', 'rename')",
        schema="refold",
    )
