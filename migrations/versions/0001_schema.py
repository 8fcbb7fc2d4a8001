"""The schema of refold: all its tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from refold.store.schema import tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(sa.schema.CreateSequence(tables.positions))
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
        "batches",
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("stored", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        schema="refold",
        comment="Large statements of producers, by which room in the log is prepared for the next.",
    )
    op.create_index("batches_by_time", "batches", ["at"], unique=False, schema="refold")
    op.create_table(
        "checksum_changes",
        sa.Column("build_id", sa.BigInteger(), nullable=False),
        sa.Column("relation", sa.SmallInteger(), nullable=False),
        sa.Column("slice", sa.Integer(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.Numeric(), nullable=False),
        schema="refold",
        comment="Changes of checksums by pages, which are not added up yet.",
        postgresql_with={"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "5000"},
    )
    op.create_index("checksum_changes_by_build", "checksum_changes", ["build_id"], unique=False, schema="refold")
    op.create_table(
        "cursors",
        sa.Column("build_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("done", tables.PgSnapshot(), server_default=sa.text("'1:1:'::pg_snapshot"), nullable=False),
        sa.Column("target", tables.PgSnapshot(), nullable=True),
        sa.Column("progress_txid", tables.Xid8(), nullable=True),
        sa.Column("progress_position", sa.BigInteger(), nullable=True),
        sa.Column("progress_ordinal", sa.Integer(), nullable=True),
        sa.Column("events_applied", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("pages_applied", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("apply_ms", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("moved_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "num_nulls(progress_txid, progress_position, progress_ordinal) IN (0, 3)",
            name=op.f("cursors_progress_whole"),
        ),
        sa.CheckConstraint("progress_txid IS NULL OR target IS NOT NULL", name=op.f("cursors_progress_within_run")),
        sa.PrimaryKeyConstraint("build_id", "number", name=op.f("cursors_pkey")),
        schema="refold",
        comment="Which events each build has applied: a row for every page, of which the newest counts.",
        postgresql_with={"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "5000"},
    )
    op.create_table(
        "deployments",
        sa.Column("deployment", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.Text(), server_default=sa.text("session_user"), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("promote", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("promoted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("given_up_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "views",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="analysts' views that go live in the same transaction: name and text of each file",
        ),
        sa.CheckConstraint(
            "kind IN ('deploy', 'rebuild', 'promote', 'rollback', 'drop', 'rename')", name=op.f("deployments_kind")
        ),
        sa.PrimaryKeyConstraint("deployment", name=op.f("deployments_pkey")),
        schema="refold",
        comment="Builds that were asked for together and go live together, in one transaction.",
    )
    op.create_table(
        "duplicates",
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("folded", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        schema="refold",
        comment="Duplicates that were refused: a row for each statement, later a row for each minute.",
    )
    op.create_index("duplicates_by_time", "duplicates", ["at"], unique=False, schema="refold")
    op.create_table(
        "duties",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "started_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("pid", sa.Integer(), server_default=sa.text("pg_backend_pid()"), nullable=False),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("duties_pkey")),
        schema="refold",
        comment="The last run of each duty, in any worker, and how it ended.",
    )
    op.create_table(
        "event_ids",
        sa.Column("event_id", sa.Text(collation="C"), nullable=False),
        sa.Column("digest", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name=op.f("event_ids_pkey")),
        schema="refold",
        comment="The ledger (dedup table): it takes each event id once; the digest tells a duplicate from a conflict.",
    )
    op.create_index(
        "event_ids_range",
        "event_ids",
        ["position"],
        unique=False,
        schema="refold",
        postgresql_using="brin",
        postgresql_with={"pages_per_range": "32", "autosummarize": "on"},
    )
    op.create_table(
        "events",
        sa.Column("txid", tables.Xid8(), server_default=sa.text("pg_current_xact_id()"), nullable=False),
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
            "metadata", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("jsonb_typeof(metadata) = 'object'", name=op.f("events_metadata_object")),
        sa.CheckConstraint(
            "ts >= '0001-01-01 00:00:00+00' AND ts < '10000-01-01 00:00:00+00'", name=op.f("events_ts_range")
        ),
        sa.CheckConstraint("char_length(action) BETWEEN 1 AND 255", name=op.f("events_action_length")),
        sa.CheckConstraint("char_length(event_id) BETWEEN 1 AND 255", name=op.f("events_event_id_length")),
        sa.CheckConstraint("char_length(user_id) BETWEEN 1 AND 255", name=op.f("events_user_id_length")),
        sa.CheckConstraint("version BETWEEN 1 AND 32767", name=op.f("events_version_range")),
        sa.PrimaryKeyConstraint("txid", "position", name=op.f("events_pkey")),
        schema="refold",
        comment="The log: every event once, append-only; the only source of truth.",
        postgresql_partition_by="RANGE (position)",
    )
    op.create_index(
        "events_range",
        "events",
        ["position", "ts", "recorded_at"],
        unique=False,
        schema="refold",
        postgresql_using="brin",
        postgresql_ops={"ts": "timestamptz_minmax_multi_ops"},
        postgresql_with={"pages_per_range": "32", "autosummarize": "on"},
    )
    op.create_table(
        "forgotten",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("detecting", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("recovering", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("what IN ('rejected', 'repairs', 'incidents')", name=op.f("forgotten_what")),
        sa.PrimaryKeyConstraint("day", "what", "kind", name=op.f("forgotten_pkey")),
        schema="refold",
        comment="Numbers of old records that were deleted, by day (UTC) and kind; reports still count them.",
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
            "evidence", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("outcome", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.CheckConstraint(
            "kind IN ('drift', 'dead_letters', 'stalled', 'lag', 'held_back', 'held_snapshot', 'missed_notification',"
            " 'log_damage', 'impure_transform', 'foreign_cluster', 'hot_key', 'hidden')",
            name=op.f("incidents_kind"),
        ),
        sa.CheckConstraint(
            "(resolved_at IS NULL) = (resolved_by IS NULL)", name=op.f("incidents_resolved_by_somebody")
        ),
        sa.CheckConstraint("started_at <= detected_at AND detected_at <= resolved_at", name=op.f("incidents_in_order")),
        sa.PrimaryKeyConstraint("incident_id", name=op.f("incidents_pkey")),
        schema="refold",
        comment="Faults with the times of start, detection and resolution, who saw and resolved them, and evidence.",
    )
    op.create_index("incidents_by_time", "incidents", ["detected_at"], unique=False, schema="refold")
    op.create_index(
        "incidents_one_open",
        "incidents",
        ["kind", "subject"],
        unique=True,
        schema="refold",
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.create_table(
        "latencies",
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("build_id", sa.BigInteger(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("stage IN ('waiting', 'applying', 'fresh')", name=op.f("latencies_stage")),
        sa.PrimaryKeyConstraint("minute", "build_id", "stage", "bucket", name=op.f("latencies_pkey")),
        schema="refold",
        comment="How long events took to reach a build: counts in buckets on a log scale (refold.model.quantiles).",
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
        comment="Input that was rejected: conflicts and invalid events, with raw text, reason, source and line.",
    )
    op.create_index("rejected_by_answer", "rejected", ["answer", "last_seen"], unique=False, schema="refold")
    op.create_index(
        "rejected_once",
        "rejected",
        ["source", "line", "answer", sa.literal_column("md5(raw)")],
        unique=True,
        schema="refold",
    )
    op.create_table(
        "sealed_slices",
        sa.Column("slice", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("passed", tables.Xid8(), nullable=False),
        sa.Column("sealed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("events", sa.BigInteger(), nullable=True),
        sa.Column("upto", tables.Xid8(), nullable=True),
        sa.Column("ids", sa.Numeric(), nullable=True),
        sa.Column("hash", sa.Numeric(), nullable=True),
        sa.Column("scrubbed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("num_nulls(sealed_at, events, upto, ids, hash) IN (0, 5)", name=op.f("sealed_slices_whole")),
        sa.PrimaryKeyConstraint("slice", name=op.f("sealed_slices_pkey")),
        schema="refold",
        comment="Checksums of the slices of the log to which no transaction can write any more.",
    )
    op.create_index("sealed_slices_by_passed", "sealed_slices", ["passed", "slice"], unique=False, schema="refold")
    op.create_index("sealed_slices_by_time", "sealed_slices", ["sealed_at", "slice"], unique=False, schema="refold")
    op.create_table(
        "settings",
        sa.Column("singleton", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("system_identifier", sa.BigInteger(), nullable=False),
        sa.Column("segment_size", sa.BigInteger(), server_default=sa.text("1000000"), nullable=False),
        sa.Column("segments_ahead", sa.Integer(), server_default=sa.text("2"), nullable=False),
        sa.Column("max_dead_letters", sa.Integer(), server_default=sa.text("100"), nullable=False),
        sa.Column("dead_letter_share", sa.Double(), server_default=sa.text("0.5"), nullable=False),
        sa.Column("too_many_dead_letters", sa.Text(), server_default=sa.text("'go on'"), nullable=False),
        sa.Column("lag_limit", sa.Integer(), server_default=sa.text("60"), nullable=False),
        sa.Column("stalled_after", sa.Integer(), server_default=sa.text("300"), nullable=False),
        sa.Column("held_back_after", sa.Integer(), server_default=sa.text("60"), nullable=False),
        sa.Column("held_snapshot_after", sa.Integer(), server_default=sa.text("60"), nullable=False),
        sa.Column("impure_sample", sa.Integer(), server_default=sa.text("20"), nullable=False),
        sa.Column("latency_days", sa.Integer(), server_default=sa.text("30"), nullable=False),
        sa.Column("deep_audit_days", sa.Integer(), server_default=sa.text("7"), nullable=False),
        sa.Column("rejected_days", sa.Integer(), server_default=sa.text("90"), nullable=False),
        sa.Column("repair_days", sa.Integer(), server_default=sa.text("400"), nullable=False),
        sa.Column("incident_days", sa.Integer(), server_default=sa.text("400"), nullable=False),
        sa.Column("build_days", sa.Integer(), server_default=sa.text("90"), nullable=False),
        sa.Column("scrub_days", sa.Integer(), server_default=sa.text("7"), nullable=False),
        sa.Column("hash_probe", postgresql.ARRAY(sa.BigInteger()), nullable=True),
        sa.CheckConstraint("too_many_dead_letters IN ('go on', 'stop')", name=op.f("settings_too_many_dead_letters")),
        sa.CheckConstraint("dead_letter_share BETWEEN 0 AND 1", name=op.f("settings_dead_letter_share")),
        sa.CheckConstraint("deep_audit_days > 0", name=op.f("settings_deep_audit_days")),
        sa.CheckConstraint("held_snapshot_after >= 0", name=op.f("settings_held_snapshot_after")),
        sa.CheckConstraint("latency_days > 0", name=op.f("settings_latency_days")),
        sa.CheckConstraint(
            "least(lag_limit, stalled_after, held_back_after, impure_sample) >= 0", name=op.f("settings_limits")
        ),
        sa.CheckConstraint(
            "least(rejected_days, repair_days, incident_days, build_days) > 0", name=op.f("settings_retention")
        ),
        sa.CheckConstraint("max_dead_letters >= 0", name=op.f("settings_max_dead_letters")),
        sa.CheckConstraint("scrub_days > 0", name=op.f("settings_scrub_days")),
        sa.CheckConstraint("segment_size > 0", name=op.f("settings_segment_size")),
        sa.CheckConstraint("segments_ahead > 0", name=op.f("settings_segments_ahead")),
        sa.CheckConstraint("singleton", name=op.f("settings_singleton")),
        sa.PrimaryKeyConstraint("singleton", name=op.f("settings_pkey")),
        schema="refold",
        comment="One row: the cluster that the cursors belong to, the size of segments, and all limits.",
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
        sa.Column("reads", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("loaded", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("load_step", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("load_steps", sa.Integer(), nullable=True),
        sa.Column("deployment", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("promoted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("retired_by", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("dead_letters", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("waiting_letters", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("language IN ('sql', 'python')", name=op.f("builds_language")),
        sa.CheckConstraint("state IN ('building', 'live', 'retired', 'dropped')", name=op.f("builds_state")),
        sa.CheckConstraint(
            "upkeep IN ('facts', 'merge', 'members', 'funnel', 'recompute', 'transform')", name=op.f("builds_upkeep")
        ),
        sa.ForeignKeyConstraint(["deployment"], ["refold.deployments.deployment"], name=op.f("builds_deployment_fkey")),
        sa.ForeignKeyConstraint(["retired_by"], ["refold.deployments.deployment"], name=op.f("builds_retired_by_fkey")),
        sa.ForeignKeyConstraint(["upstream_id"], ["refold.builds.build_id"], name=op.f("builds_upstream_id_fkey")),
        sa.PrimaryKeyConstraint("build_id", name=op.f("builds_pkey")),
        sa.UniqueConstraint("projection", "number", name=op.f("builds_projection_number_key")),
        sa.UniqueConstraint("table_name", name=op.f("builds_table_name_key")),
        schema="refold",
        comment="One row for each build: a physical table that holds a projection at one fingerprint. Pages lock it.",
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
        "lost_events",
        sa.Column("event_id", sa.Text(collation="C"), nullable=False),
        sa.Column("acceptance", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["acceptance"], ["refold.acceptances.acceptance"], name=op.f("lost_events_acceptance_fkey")
        ),
        sa.PrimaryKeyConstraint("event_id", name=op.f("lost_events_pkey")),
        schema="refold",
        comment="Events whose loss from the log was accepted, by a person or a recovery. Their ids stay in the ledger.",
    )
    op.create_table(
        "audits",
        sa.Column("build_id", sa.BigInteger(), nullable=False),
        sa.Column("rolling", sa.Boolean(), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column(
            "stepped_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("upto_slice", sa.Integer(), nullable=True),
        sa.Column("steps", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["build_id"], ["refold.builds.build_id"], name=op.f("audits_build_id_fkey")),
        sa.PrimaryKeyConstraint("build_id", "rolling", name=op.f("audits_pkey")),
        schema="refold",
        comment="Progress of the deep audit of each build, so that an interrupted audit continues.",
    )
    op.create_table(
        "checksums",
        sa.Column("build_id", sa.BigInteger(), nullable=False),
        sa.Column("relation", sa.SmallInteger(), nullable=False),
        sa.Column("slice", sa.Integer(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.Numeric(), nullable=False),
        sa.ForeignKeyConstraint(["build_id"], ["refold.builds.build_id"], name=op.f("checksums_build_id_fkey")),
        sa.PrimaryKeyConstraint("build_id", "relation", "slice", name=op.f("checksums_pkey")),
        schema="refold",
        comment="Rows and sum of hashes of each slice that a build has written or read; add checksum_changes.",
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "dead_letters",
        sa.Column("dead_letter_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("build_id", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.Text(collation="C"), nullable=False),
        sa.Column("txid", tables.Xid8(), nullable=False),
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
        sa.CheckConstraint("(state = 'waiting') = (ended_at IS NULL)", name=op.f("dead_letters_ended")),
        sa.CheckConstraint("state <> 'dropped' OR reason IS NOT NULL", name=op.f("dead_letters_dropped_for_a_reason")),
        sa.CheckConstraint("state IN ('waiting', 'released', 'dropped')", name=op.f("dead_letters_state")),
        sa.ForeignKeyConstraint(["build_id"], ["refold.builds.build_id"], name=op.f("dead_letters_build_id_fkey")),
        sa.PrimaryKeyConstraint("dead_letter_id", name=op.f("dead_letters_pkey")),
        sa.UniqueConstraint("build_id", "event_id", name=op.f("dead_letters_build_id_event_id_key")),
        schema="refold",
        comment="Events that one build could not process, kept with the error; never dropped without a reason.",
    )
    op.create_index(
        "dead_letters_waiting",
        "dead_letters",
        ["build_id", "first_failed_at"],
        unique=False,
        schema="refold",
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_table(
        "quick_audits",
        sa.Column("build_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("together", sa.Integer(), nullable=False),
        sa.Column("blocks", sa.BigInteger(), nullable=True),
        sa.Column("upto_slice", sa.Integer(), nullable=True),
        sa.Column("clean", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["build_id"], ["refold.builds.build_id"], name=op.f("quick_audits_build_id_fkey")),
        sa.PrimaryKeyConstraint("build_id", name=op.f("quick_audits_pkey")),
        schema="refold",
        comment="Progress of the quick audit of builds whose tables are too large for one statement.",
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
        comment="Rows that reconcile has healed: who, when, and the row before and after.",
    )
    op.create_index("repairs_by_build", "repairs", ["build_id", "repaired_at"], unique=False, schema="refold")
    op.create_index("repairs_by_time", "repairs", ["repaired_at"], unique=False, schema="refold")
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
