"""Backfills from files, and the incident of one that pauses itself."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
JSON = postgresql.JSONB(astext_type=sa.Text())


def _count(name: str, comment: str | None = None) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False, comment=comment)


def upgrade() -> None:
    op.create_table(
        "file_backfills",
        sa.Column("backfill_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'staging'"), nullable=False),
        sa.Column("files", JSON, nullable=False, comment="Name, size and records of each file, in order."),
        sa.Column("options", JSON, nullable=False, comment="How the files were read, as it was given."),
        _count("total", "Records that are staged."),
        _count("invalid", "Of these, no events."),
        sa.Column("first_ts", TIME, nullable=True, comment="When the first of its events happened."),
        sa.Column("last_ts", TIME, nullable=True),
        sa.Column("created_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("created_by", sa.Text(), server_default=sa.text("session_user"), nullable=False),
        sa.Column("checked_at", TIME, nullable=True),
        sa.Column("findings", JSON, nullable=True, comment="What the check found; it may hold keys and values."),
        _count("mark", "Last record that is answered."),
        _count("accepted"),
        _count("duplicates"),
        _count("conflicts"),
        sa.Column("rate_limit", sa.Integer(), nullable=True, comment="Records a second that were asked for at most."),
        sa.Column("freshness_limit", sa.Double(), nullable=True, comment="Seconds that live metrics may be behind."),
        sa.Column("batch", sa.Integer(), nullable=True, comment="Records in a transaction, at present."),
        sa.Column("per_second", sa.Double(), nullable=True, comment="Records a second over the last minute."),
        sa.Column("because", sa.Text(), nullable=True, comment="Why it is slow, or paused."),
        sa.Column(
            "ran",
            postgresql.TSTZMULTIRANGE(),
            server_default=sa.text("'{}'::tstzmultirange"),
            nullable=False,
            comment="When it ran: what came then is no part of what usually comes.",
        ),
        sa.Column("stepped_at", TIME, nullable=True),
        sa.Column("ended_at", TIME, nullable=True),
        sa.Column("ended_by", sa.Text(), nullable=True),
        sa.CheckConstraint("name ~ '^[a-z_][a-z0-9_]{0,39}$'", name=op.f("file_backfills_name")),
        sa.CheckConstraint(
            "state IN ('staging', 'staged', 'checked', 'running', 'paused', 'done', 'aborted')",
            name=op.f("file_backfills_state"),
        ),
        sa.CheckConstraint(
            "mark BETWEEN 0 AND total AND (state <> 'done' OR mark = total)", name=op.f("file_backfills_mark")
        ),
        sa.CheckConstraint("state <> 'checked' OR checked_at IS NOT NULL", name=op.f("file_backfills_checked")),
        sa.CheckConstraint(
            "(state IN ('done', 'aborted')) = (ended_at IS NOT NULL)", name=op.f("file_backfills_ended")
        ),
        sa.PrimaryKeyConstraint("backfill_id", name=op.f("file_backfills_pkey")),
        schema="refold",
        postgresql_with={"fillfactor": "50"},
        comment="Backfills from files: what was staged, what the check found, and how far each has run.",
    )
    op.create_index(
        "file_backfills_one_of_a_name",
        "file_backfills",
        ["name"],
        unique=True,
        schema="refold",
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_index(
        "file_backfills_one_runs",
        "file_backfills",
        ["state"],
        unique=True,
        schema="refold",
        postgresql_where=sa.text("state = 'running'"),
    )
    op.drop_constraint(op.f("incidents_kind"), "incidents", schema="refold", type_="check")
    op.create_check_constraint(
        op.f("incidents_kind"),
        "incidents",
        "kind IN ('drift', 'dead_letters', 'stalled', 'lag', 'held_back', 'held_snapshot', 'missed_notification',"
        " 'log_damage', 'impure_transform', 'foreign_cluster', 'hot_key', 'hidden', 'pressure', 'capture_gap', 'sink',"
        " 'undelivered', 'outbox_collapsed', 'anomaly', 'archive', 'archive_damage', 'backfill_paused')",
        schema="refold",
    )
