"""The log, its ledger, and the catalog of builds."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

import refold.store.schema.tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(sa.schema.CreateSequence(refold.store.schema.tables.positions))
    op.create_table(
        "deployments",
        sa.Column("deployment", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.Text(), server_default=sa.text("session_user"), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("promote", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("promoted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('deploy', 'rebuild', 'promote', 'rollback')", name=op.f("deployments_kind")),
        sa.PrimaryKeyConstraint("deployment", name=op.f("deployments_pkey")),
        schema="refold",
        comment="Builds that were asked for together and go live together, in one transaction.",
    )
    op.create_table(
        "event_ids",
        sa.Column("event_id", sa.Text(collation="C"), nullable=False),
        sa.Column("digest", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name=op.f("event_ids_pkey")),
        schema="refold",
        comment="The idempotence ledger: an event id gets in once; the digest tells a duplicate from a conflict.",
    )
    op.create_table(
        "events",
        sa.Column(
            "txid", refold.store.schema.tables.Xid8(), server_default=sa.text("pg_current_xact_id()"), nullable=False
        ),
        sa.Column(
            "position",
            sa.BigInteger(),
            server_default=sa.text("nextval('refold.events_position'::regclass)"),
            nullable=False,
        ),
        sa.Column("event_id", sa.Text(collation="C"), nullable=False),
        sa.Column("user_id", sa.Text(collation="C"), nullable=True),
        sa.Column("action", sa.Text(collation="C"), nullable=False),
        sa.Column("ts", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("jsonb_typeof(metadata) = 'object'", name=op.f("events_metadata_object")),
        sa.CheckConstraint(
            "ts >= '0001-01-01 00:00:00+00' AND ts < '10000-01-01 00:00:00+00'", name=op.f("events_ts_range")
        ),
        sa.CheckConstraint("char_length(user_id) BETWEEN 1 AND 255", name=op.f("events_user_id_length")),
        sa.CheckConstraint("char_length(action) BETWEEN 1 AND 255", name=op.f("events_action_length")),
        sa.CheckConstraint("char_length(event_id) BETWEEN 1 AND 255", name=op.f("events_event_id_length")),
        sa.CheckConstraint("version BETWEEN 1 AND 32767", name=op.f("events_version_range")),
        sa.PrimaryKeyConstraint("txid", "position", name=op.f("events_pkey")),
        schema="refold",
        comment="The log: every event once, append-only. The only truth, and the bus.",
        postgresql_partition_by="RANGE (position)",
    )
    op.create_table(
        "rejected",
        sa.Column("rejected_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("raw", sa.Text(), nullable=False),
        sa.Column("times", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("first_seen", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_seen", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("answer IN ('conflict', 'invalid')", name=op.f("rejected_answer")),
        sa.PrimaryKeyConstraint("rejected_id", name=op.f("rejected_pkey")),
        schema="refold",
        comment="Input that was set aside: conflicts and invalid events, with raw text, reason, source and line.",
    )
    op.create_index(
        "rejected_once",
        "rejected",
        ["source", "line", "answer", sa.literal_column("md5(raw)")],
        unique=True,
        schema="refold",
    )
    op.create_table(
        "settings",
        sa.Column("singleton", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("system_identifier", sa.BigInteger(), nullable=False),
        sa.Column("segment_size", sa.BigInteger(), server_default=sa.text("1000000"), nullable=False),
        sa.Column("segments_ahead", sa.Integer(), server_default=sa.text("2"), nullable=False),
        sa.CheckConstraint("segment_size > 0", name=op.f("settings_segment_size")),
        sa.CheckConstraint("segments_ahead > 0", name=op.f("settings_segments_ahead")),
        sa.CheckConstraint("singleton", name=op.f("settings_singleton")),
        sa.PrimaryKeyConstraint("singleton", name=op.f("settings_pkey")),
        schema="refold",
        comment="One row: which cluster the cursors speak of, and how the log is cut into segments.",
    )
    op.create_table(
        "builds",
        sa.Column("build_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("projection", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'building'"), nullable=False),
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.Column("upkeep", sa.Text(), nullable=False),
        sa.Column("upstream_id", sa.BigInteger(), nullable=True),
        sa.Column(
            "done",
            refold.store.schema.tables.PgSnapshot(),
            server_default=sa.text("'1:1:'::pg_snapshot"),
            nullable=False,
        ),
        sa.Column("target", refold.store.schema.tables.PgSnapshot(), nullable=True),
        sa.Column("progress_txid", refold.store.schema.tables.Xid8(), nullable=True),
        sa.Column("progress_position", sa.BigInteger(), nullable=True),
        sa.Column("progress_ordinal", sa.Integer(), nullable=True),
        sa.Column("loaded", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("load_step", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("load_steps", sa.Integer(), nullable=True),
        sa.Column("events_applied", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("pages_applied", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("apply_ms", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deployment", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("promoted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("retired_by", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint("language IN ('sql', 'python')", name=op.f("builds_language")),
        sa.CheckConstraint("state IN ('building', 'live', 'retired', 'dropped')", name=op.f("builds_state")),
        sa.CheckConstraint(
            "upkeep IN ('facts', 'merge', 'members', 'recompute', 'transform')", name=op.f("builds_upkeep")
        ),
        sa.CheckConstraint(
            "num_nulls(progress_txid, progress_position, progress_ordinal) IN (0, 3)",
            name=op.f("builds_progress_whole"),
        ),
        sa.CheckConstraint("progress_txid IS NULL OR target IS NOT NULL", name=op.f("builds_progress_within_run")),
        sa.ForeignKeyConstraint(["deployment"], ["refold.deployments.deployment"], name=op.f("builds_deployment_fkey")),
        sa.ForeignKeyConstraint(["retired_by"], ["refold.deployments.deployment"], name=op.f("builds_retired_by_fkey")),
        sa.ForeignKeyConstraint(["upstream_id"], ["refold.builds.build_id"], name=op.f("builds_upstream_id_fkey")),
        sa.PrimaryKeyConstraint("build_id", name=op.f("builds_pkey")),
        sa.UniqueConstraint("projection", "number", name=op.f("builds_projection_number_key")),
        sa.UniqueConstraint("table_name", name=op.f("builds_table_name_key")),
        schema="refold",
        comment="One row a build: a physical table that holds a projection at one fingerprint, and its cursor.",
        postgresql_with={"fillfactor": "50"},
    )
    op.create_index(
        "builds_one_live",
        "builds",
        ["projection"],
        unique=True,
        schema="refold",
        postgresql_where=sa.text("state = 'live'"),
    )
    op.create_table(
        "repairs",
        sa.Column("repair_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("build_id", sa.BigInteger(), nullable=False),
        sa.Column("projection", sa.Text(), nullable=False),
        sa.Column("relation", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("before", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("after", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("repaired_by", sa.Text(), server_default=sa.text("session_user"), nullable=False),
        sa.Column("repaired_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('missing', 'orphan', 'drifted')", name=op.f("repairs_kind")),
        sa.ForeignKeyConstraint(["build_id"], ["refold.builds.build_id"], name=op.f("repairs_build_id_fkey")),
        sa.PrimaryKeyConstraint("repair_id", name=op.f("repairs_pkey")),
        schema="refold",
        comment="What reconcile healed: who, when, what, before and after.",
    )
    # What refold.parse_events makes of a JSON event.
    op.execute("""
        CREATE TYPE refold.parsed_event AS (
            ordinal integer,
            event_id text COLLATE "C",
            user_id text,
            action text,
            ts timestamptz,
            metadata jsonb,
            version integer,
            reason text
        )
    """)
    # Cursors speak of the transactions of this cluster, and of no other.
    op.execute("INSERT INTO refold.settings (system_identifier) SELECT system_identifier FROM pg_control_system()")
