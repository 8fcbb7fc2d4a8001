"""Incidents, and the events that a build could not process."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

import refold.store.schema.tables

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "builds",
        sa.Column("dead_letters", sa.Integer(), server_default=sa.text("0"), nullable=False),
        schema="refold",
    )
    op.add_column(
        "settings",
        sa.Column("max_dead_letters", sa.Integer(), server_default=sa.text("100"), nullable=False),
        schema="refold",
    )
    op.add_column(
        "settings",
        sa.Column("dead_letter_share", sa.Double(), server_default=sa.text("0.5"), nullable=False),
        schema="refold",
    )
    op.create_check_constraint(op.f("settings_max_dead_letters"), "settings", "max_dead_letters >= 0", schema="refold")
    op.create_check_constraint(
        op.f("settings_dead_letter_share"), "settings", "dead_letter_share BETWEEN 0 AND 1", schema="refold"
    )
    op.create_table(
        "dead_letters",
        sa.Column("dead_letter_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("build_id", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.Text(collation="C"), nullable=False),
        sa.Column("txid", refold.store.schema.tables.Xid8(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'waiting'"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("sqlstate", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("traceback", sa.Text(), nullable=True),
        sa.Column("first_failed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_failed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_by", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.CheckConstraint("state IN ('waiting', 'released', 'dropped')", name=op.f("dead_letters_state")),
        sa.CheckConstraint("(state = 'waiting') = (ended_at IS NULL)", name=op.f("dead_letters_ended")),
        sa.CheckConstraint("state <> 'dropped' OR reason IS NOT NULL", name=op.f("dead_letters_dropped_for_a_reason")),
        sa.ForeignKeyConstraint(["build_id"], ["refold.builds.build_id"], name=op.f("dead_letters_build_id_fkey")),
        sa.PrimaryKeyConstraint("dead_letter_id", name=op.f("dead_letters_pkey")),
        sa.UniqueConstraint("build_id", "event_id", name=op.f("dead_letters_build_id_event_id_key")),
        schema="refold",
        comment="Events that one build could not process, set aside with the error; never dropped without a reason.",
    )
    op.create_table(
        "incidents",
        sa.Column("incident_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "detected_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("detected_by", sa.Text(), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("resolved_by", sa.Text(), nullable=True),
        sa.Column(
            "evidence",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("outcome", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.CheckConstraint(
            "kind IN ('drift', 'dead_letters', 'stalled', 'lag', 'held_back', 'lost_wake_up', 'log_damage',"
            " 'impure_transform', 'foreign_cluster')",
            name=op.f("incidents_kind"),
        ),
        sa.CheckConstraint("started_at <= detected_at AND detected_at <= resolved_at", name=op.f("incidents_in_order")),
        sa.CheckConstraint(
            "(resolved_at IS NULL) = (resolved_by IS NULL)", name=op.f("incidents_resolved_by_somebody")
        ),
        sa.PrimaryKeyConstraint("incident_id", name=op.f("incidents_pkey")),
        schema="refold",
        comment="What went wrong, when it started, was detected and resolved, by whom or what, and the evidence.",
    )
    op.create_index(
        "incidents_one_open",
        "incidents",
        ["kind", "subject"],
        unique=True,
        schema="refold",
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.create_index("incidents_by_time", "incidents", ["detected_at"], schema="refold")
