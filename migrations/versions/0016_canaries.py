"""Canaries: candidates that some readers see, and what is known of them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "canaries",
        sa.Column("canary_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("started_by", sa.Text(), server_default=sa.text("session_user"), nullable=False),
        sa.Column("started_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column(
            "steps",
            postgresql.ARRAY(sa.Integer()),
            nullable=False,
            comment="Percent of readers who see the candidates, step by step.",
        ),
        sa.Column("step", sa.Integer(), server_default=sa.text("1"), nullable=False, comment="Number of the step."),
        sa.Column("soak", sa.Interval(), nullable=False, comment="Least time at each step."),
        sa.Column(
            "expect",
            postgresql.ARRAY(sa.Text()),
            nullable=False,
            comment="Which differences are expected; empty: a person decides.",
        ),
        sa.Column("state", sa.Text(), server_default=sa.text("'running'"), nullable=False),
        sa.Column("because", sa.Text(), nullable=True, comment="Why it is held, waits, or has ended."),
        sa.Column("stepped_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("checked_at", TIME, nullable=True, comment="When the rules were checked last."),
        sa.Column("ended_at", TIME, nullable=True),
        sa.CheckConstraint(
            "state IN ('running', 'held', 'promoted', 'aborted', 'superseded')", name=op.f("canaries_state")
        ),
        sa.CheckConstraint("(state IN ('running', 'held')) = (ended_at IS NULL)", name=op.f("canaries_ended")),
        sa.CheckConstraint(
            "step BETWEEN 1 AND cardinality(steps) AND 0 <= ALL (steps) AND 100 >= ALL (steps)",
            name=op.f("canaries_steps"),
        ),
        sa.PrimaryKeyConstraint("canary_id", name=op.f("canaries_pkey")),
        schema="refold",
        comment="Candidates that were shown to some readers before they went live, and how that ended.",
    )
    op.create_index(
        "canaries_open", "canaries", ["canary_id"], schema="refold", postgresql_where=sa.text("ended_at IS NULL")
    )
    op.create_table(
        "canary_builds",
        sa.Column("canary_id", sa.BigInteger(), nullable=False),
        sa.Column("projection", sa.Text(), nullable=False),
        sa.Column("build_id", sa.BigInteger(), nullable=False, comment="The candidate."),
        sa.Column(
            "exposed",
            sa.Boolean(),
            nullable=False,
            comment="Whether metrics.NAME shows it to some readers; else only metrics_canary.NAME does.",
        ),
        sa.Column(
            "shown", sa.Boolean(), server_default=sa.text("true"), nullable=False, comment="Whether these views exist."
        ),
        sa.Column(
            "dead_letters", sa.Integer(), nullable=False, comment="Events that it left out when the canary began."
        ),
        sa.Column(
            "marks",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'[]'::jsonb"),
            nullable=False,
            comment="Events and milliseconds of candidate and live build, at each of the last checks.",
        ),
        sa.Column(
            "verdict",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="What the last check found, with rows that differ.",
        ),
        sa.ForeignKeyConstraint(
            ["canary_id"], ["refold.canaries.canary_id"], name=op.f("canary_builds_canary_id_fkey")
        ),
        sa.PrimaryKeyConstraint("projection", "canary_id", name=op.f("canary_builds_pkey")),
        schema="refold",
        comment="The candidates of each canary.",
    )
    op.create_index(
        "canary_builds_shown",
        "canary_builds",
        ["projection"],
        unique=True,
        schema="refold",
        postgresql_where=sa.text("shown"),
    )
    op.drop_constraint(op.f("incidents_kind"), "incidents", schema="refold", type_="check")
    op.create_check_constraint(
        op.f("incidents_kind"),
        "incidents",
        "kind IN ('drift', 'dead_letters', 'stalled', 'lag', 'held_back', 'held_snapshot', 'missed_notification',"
        " 'log_damage', 'impure_transform', 'foreign_cluster', 'hot_key', 'hidden', 'pressure', 'capture_gap', 'sink',"
        " 'undelivered', 'outbox_collapsed', 'anomaly', 'archive', 'archive_damage', 'backfill_paused',"
        " 'canary_aborted')",
        schema="refold",
    )
