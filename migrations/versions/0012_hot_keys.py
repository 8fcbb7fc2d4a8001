"""Funnels that are kept in their row, and keys with so many events that a page is expensive."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # It takes up where another pass has ended; beside the new one, a call with one argument would be ambiguous.
    op.execute("DROP FUNCTION IF EXISTS refold.window_funnel_scan(bytea, integer)")
    op.drop_constraint(op.f("builds_upkeep"), "builds", schema="refold")
    op.create_check_constraint(
        op.f("builds_upkeep"),
        "builds",
        "upkeep IN ('facts', 'merge', 'members', 'funnel', 'recompute', 'transform')",
        schema="refold",
    )
    op.drop_constraint(op.f("incidents_kind"), "incidents", schema="refold")
    op.create_check_constraint(
        op.f("incidents_kind"),
        "incidents",
        "kind IN ('drift', 'dead_letters', 'stalled', 'lag', 'held_back', 'held_snapshot', 'lost_wake_up',"
        " 'log_damage', 'impure_transform', 'foreign_cluster', 'hot_key')",
        schema="refold",
    )
