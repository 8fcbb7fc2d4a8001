"""Damage to the log: where each id of the ledger stands, what was accepted, and which hash functions are trusted."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("event_ids", sa.Column("position", sa.BigInteger(), nullable=True), schema="refold")
    # The guard is put back by `sql/`, which is applied after every migration.
    op.execute("DROP TRIGGER IF EXISTS refuse_change ON refold.event_ids")
    # Nobody may bring an id without a position meanwhile.
    op.execute("LOCK TABLE refold.events IN SHARE ROW EXCLUSIVE MODE")
    op.execute(
        "UPDATE refold.event_ids AS k SET position = e.position FROM refold.events AS e WHERE e.event_id = k.event_id"
    )
    op.execute("UPDATE refold.event_ids SET position = 0 WHERE position IS NULL")
    op.alter_column("event_ids", "position", nullable=False, schema="refold")
    op.execute(
        "CREATE INDEX event_ids_range ON refold.event_ids USING brin (position)"
        " WITH (pages_per_range = 32, autosummarize = on)"
    )
    op.create_table(
        "acceptances",
        sa.Column("acceptance", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("segment", sa.Text(), nullable=False),
        sa.Column("accepted_by", sa.Text(), server_default=sa.text("session_user"), nullable=False),
        sa.Column(
            "accepted_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("missing", sa.BigInteger(), nullable=False),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        sa.Column("unknown", sa.BigInteger(), nullable=False),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.CheckConstraint("reason <> ''", name=op.f("acceptances_reason")),
        sa.PrimaryKeyConstraint("acceptance", name=op.f("acceptances_pkey")),
        schema="refold",
        comment="Damage to the log that a person has accepted: who, when, why, and what was lost.",
    )
    op.create_table(
        "lost_events",
        sa.Column("event_id", sa.Text(collation="C"), nullable=False),
        sa.Column("acceptance", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["acceptance"], ["refold.acceptances.acceptance"], name=op.f("lost_events_acceptance_fkey")
        ),
        sa.PrimaryKeyConstraint("event_id", name=op.f("lost_events_pkey")),
        schema="refold",
        comment="Events that are not in the log any more, which somebody has accepted. Their ids stay in the ledger.",
    )
    op.add_column("sealed", sa.Column("scrubbed_at", sa.DateTime(timezone=True), nullable=True), schema="refold")
    op.add_column(
        "settings",
        sa.Column("scrub_days", sa.Integer(), server_default=sa.text("7"), nullable=False),
        schema="refold",
    )
    op.create_check_constraint(op.f("settings_scrub_days"), "settings", "scrub_days > 0", schema="refold")
    # NULL until `sql/` has brought the function that fills it.
    op.add_column(
        "settings", sa.Column("hash_probe", postgresql.ARRAY(sa.BigInteger()), nullable=True), schema="refold"
    )
