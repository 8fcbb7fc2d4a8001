"""How long backups and former versions of archived files are kept: from when on an erasure is provable everywhere."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("backups_kept", "versions_kept"):
        op.add_column("settings", sa.Column(name, sa.Interval(), nullable=True), schema="refold")
    op.create_check_constraint(
        op.f("settings_kept"), "settings", "least(backups_kept, versions_kept) >= '0 s'::interval", schema="refold"
    )
