"""The incident of a capture that could not add events, and the index that finds it."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint(op.f("incidents_kind"), "incidents", schema="refold", type_="check")
    op.create_check_constraint(
        op.f("incidents_kind"),
        "incidents",
        "kind IN ('drift', 'dead_letters', 'stalled', 'lag', 'held_back', 'held_snapshot', 'missed_notification',"
        " 'log_damage', 'impure_transform', 'foreign_cluster', 'hot_key', 'hidden', 'pressure', 'capture_gap')",
        schema="refold",
    )
    op.create_index(
        "capture_gaps_failed",
        "capture_gaps",
        ["capture_id", "gap_id"],
        unique=False,
        schema="refold",
        postgresql_where=sa.text("sqlstate IS NOT NULL"),
    )
    # It keeps a page of the table and of each index: where the disk is full, a pause can still be recorded.
    op.execute("INSERT INTO refold.capture_gaps (capture_id, pauses, sqlstate) VALUES (0, true, '53100')")
