"""Dead letters: what waits is counted apart, and a live build goes on beyond the bound."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "builds",
        sa.Column("waiting_letters", sa.Integer(), server_default=sa.text("0"), nullable=False),
        schema="refold",
    )
    op.execute(
        """
        UPDATE refold.builds AS b SET waiting_letters = d.waiting
        FROM (SELECT build_id, count(*) AS waiting FROM refold.dead_letters WHERE state = 'waiting' GROUP BY 1) AS d
        WHERE d.build_id = b.build_id
        """
    )
    op.create_index(
        "dead_letters_waiting",
        "dead_letters",
        ["build_id", "first_failed_at"],
        schema="refold",
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.add_column(
        "settings",
        sa.Column("too_many_dead_letters", sa.Text(), server_default=sa.text("'go on'"), nullable=False),
        schema="refold",
    )
    op.create_check_constraint(
        op.f("settings_too_many_dead_letters"),
        "settings",
        "too_many_dead_letters IN ('go on', 'stop')",
        schema="refold",
    )
