"""Metrics whose view somebody has dropped or replaced."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint(op.f("incidents_kind"), "incidents", schema="refold")
    op.create_check_constraint(
        op.f("incidents_kind"),
        "incidents",
        "kind IN ('drift', 'dead_letters', 'stalled', 'lag', 'held_back', 'held_snapshot', 'lost_wake_up',"
        " 'log_damage', 'impure_transform', 'foreign_cluster', 'hot_key', 'hidden')",
        schema="refold",
    )
