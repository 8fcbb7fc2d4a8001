"""What is asked often costs the same however long the log is."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Which positions a transaction cannot have: see refold.positions_since.
    op.create_index("sealed_by_passed", "sealed", ["passed", "slice"], schema="refold")
    # What status and report count.
    op.create_index("sealed_by_time", "sealed", ["sealed_at", "slice"], schema="refold")
    op.create_index("rejected_by_answer", "rejected", ["answer", "last_seen"], schema="refold")
    op.create_index("repairs_by_time", "repairs", ["repaired_at"], schema="refold")
    # Others of these names follow, which take or answer something else.
    op.execute("DROP FUNCTION IF EXISTS refold.has_unread(pg_snapshot)")
    op.execute("DROP VIEW IF EXISTS metrics.freshness")
    op.execute("DROP FUNCTION IF EXISTS refold.unread(pg_snapshot, pg_snapshot, xid8, bigint)")
