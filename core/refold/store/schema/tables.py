"""refold's own tables, in one place.

SQLAlchemy Core describes them so that alembic can compare a database with this page (`alembic check`).
Functions, triggers, roles and views live in `sql/`; the tables of builds are made by `refold.engine.deployment.create`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Sequence,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB
from sqlalchemy.types import UserDefinedType

SCHEMA = "refold"


class Xid8(UserDefinedType[int]):
    """A 64-bit transaction id (`xid8`)."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "XID8"


class PgSnapshot(UserDefinedType[str]):
    """Which transactions had completed (`pg_snapshot`)."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "PG_SNAPSHOT"


metadata = MetaData(
    schema=SCHEMA,
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    },
)

TIME = DateTime(timezone=True)
BYTEWISE = Text(collation="C")

positions = Sequence("events_position", metadata=metadata, schema=SCHEMA, data_type=BigInteger, cache=1)

# `txid` comes before `position`: defaults are evaluated in this order, and a position that is drawn before
# its transaction has an id could land in a segment that was sealed in between.
events = Table(
    "events",
    metadata,
    Column("txid", Xid8, nullable=False, server_default=text("pg_current_xact_id()")),
    Column(
        "position",
        BigInteger,
        nullable=False,
        server_default=text("nextval('refold.events_position'::regclass)"),
    ),
    Column("event_id", BYTEWISE, nullable=False),
    Column("user_id", BYTEWISE),
    Column("action", BYTEWISE, nullable=False),
    Column("ts", TIME, nullable=False),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("version", Integer, nullable=False, server_default=text("1")),
    Column("recorded_at", TIME, nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("txid", "position"),
    CheckConstraint("char_length(event_id) BETWEEN 1 AND 255", "event_id_length"),
    CheckConstraint("char_length(user_id) BETWEEN 1 AND 255", "user_id_length"),
    CheckConstraint("char_length(action) BETWEEN 1 AND 255", "action_length"),
    CheckConstraint("ts >= '0001-01-01 00:00:00+00' AND ts < '10000-01-01 00:00:00+00'", "ts_range"),
    CheckConstraint("jsonb_typeof(metadata) = 'object'", "metadata_object"),
    CheckConstraint("version BETWEEN 1 AND 32767", "version_range"),
    # Where an audit finds a range of positions or of time, and a report what came since. BRIN costs next to nothing,
    # for all of them grow with the log.
    Index(
        "events_range",
        "position",
        "ts",
        "recorded_at",
        postgresql_using="brin",
        postgresql_ops={"ts": "timestamptz_minmax_multi_ops"},
        postgresql_with={"pages_per_range": "32", "autosummarize": "on"},
    ),
    postgresql_partition_by="RANGE (position)",
    comment="The log: every event once, append-only. The only truth, and the bus.",
)

event_ids = Table(
    "event_ids",
    metadata,
    Column("event_id", BYTEWISE, primary_key=True),
    Column("digest", BigInteger, nullable=False),
    # Where its event stands in the log, so that one that is missing is missing somewhere; 0: nobody knows.
    Column("position", BigInteger, nullable=False),
    # Rows come in the order of positions, or nearly.
    Index(
        "event_ids_range",
        "position",
        postgresql_using="brin",
        postgresql_with={"pages_per_range": "32", "autosummarize": "on"},
    ),
    comment="The idempotence ledger: an event id gets in once; the digest tells a duplicate from a conflict.",
)

acceptances = Table(
    "acceptances",
    metadata,
    Column("acceptance", BigInteger, Identity(always=True), primary_key=True),
    Column("segment", Text, nullable=False),
    Column("accepted_by", Text, nullable=False, server_default=text("session_user")),
    Column("accepted_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    Column("reason", Text, nullable=False),
    Column("missing", BigInteger, nullable=False),
    Column("changed", BigInteger, nullable=False),
    Column("unknown", BigInteger, nullable=False),
    # The first events of each kind, and the sealed checksums before and after.
    Column("details", JSONB, nullable=False),
    CheckConstraint("reason <> ''", "reason"),
    comment="Damage to the log that a person has accepted: who, when, why, and what was lost.",
)

lost_events = Table(
    "lost_events",
    metadata,
    # No foreign key: the ledger is append-only, and its own guard says so better.
    Column("event_id", BYTEWISE, primary_key=True),
    Column("acceptance", BigInteger, ForeignKey("refold.acceptances.acceptance"), nullable=False),
    comment="Events that are not in the log any more, which somebody has accepted. Their ids stay in the ledger.",
)

rejected = Table(
    "rejected",
    metadata,
    Column("rejected_id", BigInteger, Identity(always=True), primary_key=True),
    Column("source", Text, nullable=False),
    Column("line", BigInteger, nullable=False),
    Column("answer", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("raw", Text, nullable=False),
    Column("times", Integer, nullable=False, server_default=text("1")),
    Column("first_seen", TIME, nullable=False, server_default=func.now()),
    Column("last_seen", TIME, nullable=False, server_default=func.now()),
    CheckConstraint("answer IN ('conflict', 'invalid')", "answer"),
    Index("rejected_by_answer", "answer", "last_seen"),
    Index("rejected_once", "source", "line", "answer", text("md5(raw)"), unique=True),
    comment="Input that was set aside: conflicts and invalid events, with raw text, reason, source and line.",
)

builds = Table(
    "builds",
    metadata,
    Column("build_id", BigInteger, Identity(always=True), primary_key=True),
    Column("projection", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'building'")),
    Column("table_name", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("definition", Text, nullable=False),
    Column("upkeep", Text, nullable=False),
    Column("upstream_id", BigInteger, ForeignKey("refold.builds.build_id")),
    # The columns of its stream that its query reads, as Postgres says. NULL: it was made before that was asked, or is
    # a function.
    Column("reads", ARRAY(Text)),
    # The first load: bulk steps without indexes; `loaded` once the table has its keys and takes pages.
    Column("loaded", Boolean, nullable=False, server_default=text("false")),
    Column("load_step", Integer, nullable=False, server_default=text("0")),
    Column("load_steps", Integer),
    Column("deployment", BigInteger, ForeignKey("refold.deployments.deployment"), nullable=False),
    Column("created_at", TIME, nullable=False, server_default=func.now()),
    Column("promoted_at", TIME),
    Column("retired_at", TIME),
    Column("retired_by", BigInteger, ForeignKey("refold.deployments.deployment")),
    Column("error", Text),
    # How many events it leaves out (waiting or dropped): whoever holds its lock knows by this one number.
    Column("dead_letters", Integer, nullable=False, server_default=text("0")),
    # And how many of those wait.
    Column("waiting_letters", Integer, nullable=False, server_default=text("0")),
    UniqueConstraint("projection", "number"),
    UniqueConstraint("table_name"),
    CheckConstraint("state IN ('building', 'live', 'retired', 'dropped')", "state"),
    CheckConstraint("language IN ('sql', 'python')", "language"),
    CheckConstraint(
        "upkeep IN ('facts', 'merge', 'members', 'funnel', 'recompute', 'transform')",
        "upkeep",
    ),
    Index("builds_one_live", "projection", unique=True, postgresql_where=text("state = 'live'")),
    postgresql_with={"fillfactor": "50"},
    comment="One row a build: a physical table that holds a projection at one fingerprint. Pages lock it.",
)

# Added, never updated: while somebody holds an old snapshot nothing can be vacuumed, and a row that every page
# updates becomes slower with every version. The newest row of a build is its cursor: see refold.builds_now.
cursors = Table(
    "cursors",
    metadata,
    # No foreign key: every page would check it. See sql/functions/forget_build.sql.
    Column("build_id", BigInteger, nullable=False),
    Column("number", BigInteger, nullable=False),
    # In the log's coordinates: see refold.model.stream.cursor.
    Column("done", PgSnapshot, nullable=False, server_default=text("'1:1:'::pg_snapshot")),
    Column("target", PgSnapshot),
    Column("progress_txid", Xid8),
    Column("progress_position", BigInteger),
    Column("progress_ordinal", Integer),
    # Statistics, all since the build was made, moved in the same transaction as the rows.
    Column("events_applied", BigInteger, nullable=False, server_default=text("0")),
    Column("pages_applied", BigInteger, nullable=False, server_default=text("0")),
    Column("apply_ms", Double, nullable=False, server_default=text("0")),
    Column("applied_at", TIME),
    Column("moved_at", TIME),
    PrimaryKeyConstraint("build_id", "number"),
    CheckConstraint("progress_txid IS NULL OR target IS NOT NULL", "progress_within_run"),
    CheckConstraint("num_nulls(progress_txid, progress_position, progress_ordinal) IN (0, 3)", "progress_whole"),
    postgresql_with={"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "5000"},
    comment="Which events each build has applied: a row for every page, of which the newest counts.",
)

deployments = Table(
    "deployments",
    metadata,
    Column("deployment", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("requested_by", Text, nullable=False, server_default=text("session_user")),
    Column("requested_at", TIME, nullable=False, server_default=func.now()),
    Column("promote", Boolean, nullable=False, server_default=text("true")),
    Column("promoted_at", TIME),
    # The command has ended with an error: no worker makes these builds live.
    Column("given_up_at", TIME),
    Column("views", JSONB, comment="analysts' views that go live in the same transaction: name and text of each file"),
    CheckConstraint("kind IN ('deploy', 'rebuild', 'promote', 'rollback', 'drop', 'rename')", "kind"),
    comment="Builds that were asked for together and go live together, in one transaction.",
)

repairs = Table(
    "repairs",
    metadata,
    Column("repair_id", BigInteger, Identity(always=True), primary_key=True),
    Column("build_id", BigInteger, ForeignKey("refold.builds.build_id"), nullable=False),
    Column("projection", Text, nullable=False),
    Column("relation", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("key", JSONB, nullable=False),
    Column("before", JSONB),
    Column("after", JSONB),
    Column("repaired_by", Text, nullable=False, server_default=text("session_user")),
    Column("repaired_at", TIME, nullable=False, server_default=func.now()),
    CheckConstraint("kind IN ('missing', 'orphan', 'drifted')", "kind"),
    Index("repairs_by_time", "repaired_at"),
    # What a rollback asks, and whoever removes a build.
    Index("repairs_by_build", "build_id", "repaired_at"),
    comment="What reconcile healed: who, when, what, before and after.",
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("dead_letter_id", BigInteger, Identity(always=True), primary_key=True),
    Column("build_id", BigInteger, ForeignKey("refold.builds.build_id"), nullable=False),
    # Which row of the build's stream: its id there, and its coordinates.
    Column("event_id", BYTEWISE, nullable=False),
    Column("txid", Xid8, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'waiting'")),
    Column("attempts", Integer, nullable=False, server_default=text("1")),
    Column("sqlstate", Text),
    Column("error", Text, nullable=False),
    Column("traceback", Text),
    Column("first_failed_at", TIME, nullable=False, server_default=func.now()),
    Column("last_failed_at", TIME, nullable=False, server_default=func.now()),
    Column("ended_at", TIME),
    Column("ended_by", Text),
    Column("reason", Text),
    UniqueConstraint("build_id", "event_id"),
    CheckConstraint("state IN ('waiting', 'released', 'dropped')", "state"),
    CheckConstraint("(state = 'waiting') = (ended_at IS NULL)", "ended"),
    CheckConstraint("state <> 'dropped' OR reason IS NOT NULL", "dropped_for_a_reason"),
    # Those that have ended stay, and are not counted again and again.
    Index("dead_letters_waiting", "build_id", "first_failed_at", postgresql_where=text("state = 'waiting'")),
    comment="Events that one build could not process, set aside with the error; never dropped without a reason.",
)

incidents = Table(
    "incidents",
    metadata,
    Column("incident_id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("started_at", TIME, nullable=False),
    Column("detected_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    Column("detected_by", Text, nullable=False),
    Column("resolved_at", TIME),
    Column("resolved_by", Text),
    Column("evidence", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("outcome", JSONB),
    CheckConstraint(
        "kind IN ('drift', 'dead_letters', 'stalled', 'lag', 'held_back', 'held_snapshot', 'missed_notification',"
        " 'log_damage', 'impure_transform', 'foreign_cluster', 'hot_key', 'hidden')",
        "kind",
    ),
    CheckConstraint("started_at <= detected_at AND detected_at <= resolved_at", "in_order"),
    CheckConstraint("(resolved_at IS NULL) = (resolved_by IS NULL)", "resolved_by_somebody"),
    Index("incidents_one_open", "kind", "subject", unique=True, postgresql_where=text("resolved_at IS NULL")),
    Index("incidents_by_time", "detected_at"),
    comment="What went wrong, when it started, was detected and resolved, by whom or what, and the evidence.",
)

forgotten = Table(
    "forgotten",
    metadata,
    Column("day", Date, nullable=False),
    Column("what", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    # Of incidents: seconds until they were noticed, and from then until they were over.
    Column("detecting", Double, nullable=False, server_default=text("0")),
    Column("recovering", Double, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("day", "what", "kind"),
    CheckConstraint("what IN ('rejected', 'repairs', 'incidents')", "what"),
    comment="How many rows were removed because they were old, by day (UTC) and kind: reports count them all the same.",
)

duties = Table(
    "duties",
    metadata,
    Column("name", Text, primary_key=True),
    Column("started_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    Column("ended_at", TIME),
    Column("pid", Integer, nullable=False, server_default=text("pg_backend_pid()")),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("error", Text),
    comment="When each self-healing duty ran last, in whichever worker, and how that ended.",
)

# Producers only insert here, so that none of them waits for another's row; a duty sums up minutes that are over.
duplicates = Table(
    "duplicates",
    metadata,
    Column("at", TIME, nullable=False, server_default=func.clock_timestamp()),
    Column("events", BigInteger, nullable=False),
    Column("folded", Boolean, nullable=False, server_default=text("false")),
    Index("duplicates_by_time", "at"),
    comment="Events that were refused because the log has them: a row a statement, later one a minute.",
)

batches = Table(
    "batches",
    metadata,
    Column("at", TIME, nullable=False, server_default=func.clock_timestamp()),
    Column("events", BigInteger, nullable=False),
    # False: it was longer than the room that it found, which is what `events` is then.
    Column("stored", Boolean, nullable=False, server_default=text("true")),
    Index("batches_by_time", "at"),
    comment="Statements that brought many events at once: room is prepared for the next of them.",
)

latencies = Table(
    "latencies",
    metadata,
    Column("minute", TIME, nullable=False),
    # No foreign key: its locks on builds would meet those of the pages.
    Column("build_id", BigInteger, nullable=False),
    Column("stage", Text, nullable=False),
    Column("bucket", Integer, nullable=False),
    Column("events", BigInteger, nullable=False),
    PrimaryKeyConstraint("minute", "build_id", "stage", "bucket"),
    CheckConstraint("stage IN ('waiting', 'applying', 'fresh')", "stage"),
    comment="How long events took to reach a build: counts in buckets on a log scale (refold.model.quantiles).",
)

checksums = Table(
    "checksums",
    metadata,
    Column("build_id", BigInteger, ForeignKey("refold.builds.build_id"), nullable=False),
    # 0 the table that analysts see, 1 and on its sets of members; -1 what was read of the stream.
    Column("relation", SmallInteger, nullable=False),
    Column("slice", Integer, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("hash", Numeric, nullable=False),
    PrimaryKeyConstraint("build_id", "relation", "slice"),
    postgresql_with={"fillfactor": "50"},
    comment="What a build has written into a slice, and read: rows and the sum of hashes; plus checksum_changes.",
)

checksum_changes = Table(
    "checksum_changes",
    metadata,
    Column("build_id", BigInteger, nullable=False),
    Column("relation", SmallInteger, nullable=False),
    Column("slice", Integer, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("hash", Numeric, nullable=False),
    Index("checksum_changes_by_build", "build_id"),
    postgresql_with={"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "5000"},
    comment="What pages have changed in checksums since they were last added up.",
)

audits = Table(
    "audits",
    metadata,
    Column("build_id", BigInteger, ForeignKey("refold.builds.build_id"), nullable=False),
    # The rolling audit of the workers, or one that somebody asked for.
    Column("rolling", Boolean, nullable=False),
    Column("began_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    Column("stepped_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    # All slices up to this one have been audited since `began_at`; NULL: none yet.
    Column("upto_slice", Integer),
    Column("steps", Integer, nullable=False, server_default=text("0")),
    Column("finished_at", TIME),
    PrimaryKeyConstraint("build_id", "rolling"),
    comment="How far the deep audit of a build has got, so that it resumes.",
)

quick_audits = Table(
    "quick_audits",
    metadata,
    Column("build_id", BigInteger, ForeignKey("refold.builds.build_id"), primary_key=True, autoincrement=False),
    # Slices in a portion, and blocks of the table in a statement (NULL: all of them): see
    # refold.engine.reconcile.portions.
    Column("together", Integer, nullable=False),
    Column("blocks", BigInteger),
    # All slices up to this one have been audited in this round; NULL: none yet.
    Column("upto_slice", Integer),
    Column("clean", Boolean, nullable=False),
    comment="How far the quick audit has got of builds whose tables are too large for one statement.",
)

sealed_slices = Table(
    "sealed_slices",
    metadata,
    # Of positions: see refold.model.stream.slices.
    Column("slice", Integer, primary_key=True, autoincrement=False),
    # A transaction that began after the sequence had passed the slice's end: see refold.store.log.seal.
    Column("passed", Xid8, nullable=False),
    Column("sealed_at", TIME),
    Column("events", BigInteger),
    # Nobody who wrote there has a greater id.
    Column("upto", Xid8),
    Column("ids", Numeric),
    Column("hash", Numeric),
    # When its events were last compared with these checksums and with the ledger.
    Column("scrubbed_at", TIME),
    CheckConstraint("num_nulls(sealed_at, events, upto, ids, hash) IN (0, 5)", "whole"),
    # Which positions a transaction cannot have (refold.positions_since).
    Index("sealed_slices_by_passed", "passed", "slice"),
    Index("sealed_slices_by_time", "sealed_at", "slice"),
    comment="Slices of the log to which nothing can be written any more: how many events, which, and their hashes.",
)

settings = Table(
    "settings",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("system_identifier", BigInteger, nullable=False),
    Column("segment_size", BigInteger, nullable=False, server_default=text("1000000")),
    Column("segments_ahead", Integer, nullable=False, server_default=text("2")),
    # More than this wait, or fail of a page, and it is the projection that is broken, not the events. Then a live build
    # goes on, or stops.
    Column("max_dead_letters", Integer, nullable=False, server_default=text("100")),
    Column("dead_letter_share", Double, nullable=False, server_default=text("0.5")),
    Column("too_many_dead_letters", Text, nullable=False, server_default=text("'go on'")),
    # When a duty opens an incident, seconds.
    Column("lag_limit", Integer, nullable=False, server_default=text("60")),
    Column("stalled_after", Integer, nullable=False, server_default=text("300")),
    Column("held_back_after", Integer, nullable=False, server_default=text("60")),
    Column("held_snapshot_after", Integer, nullable=False, server_default=text("60")),
    # Events of each transform that are evaluated twice, every time that duty runs.
    Column("impure_sample", Integer, nullable=False, server_default=text("20")),
    Column("latency_days", Integer, nullable=False, server_default=text("30")),
    # In which the rolling deep audit comes round once.
    Column("deep_audit_days", Integer, nullable=False, server_default=text("7")),
    # After which records are removed: set-aside input since it was seen last, repairs and letters that were released,
    # incidents since they were over, builds since they were retired (of those whose tables were dropped).
    Column("rejected_days", Integer, nullable=False, server_default=text("90")),
    Column("repair_days", Integer, nullable=False, server_default=text("400")),
    Column("incident_days", Integer, nullable=False, server_default=text("400")),
    Column("build_days", Integer, nullable=False, server_default=text("90")),
    # In which all of the log is scrubbed once.
    Column("scrub_days", Integer, nullable=False, server_default=text("7")),
    # What this server's hash functions made of some values when they hashed what is kept: see refold.hash_probe.
    Column("hash_probe", ARRAY(BigInteger)),
    CheckConstraint("singleton", "singleton"),
    CheckConstraint("least(lag_limit, stalled_after, held_back_after, impure_sample) >= 0", "limits"),
    CheckConstraint("held_snapshot_after >= 0", "held_snapshot_after"),
    CheckConstraint("latency_days > 0", "latency_days"),
    CheckConstraint("segment_size > 0", "segment_size"),
    CheckConstraint("segments_ahead > 0", "segments_ahead"),
    CheckConstraint("max_dead_letters >= 0", "max_dead_letters"),
    CheckConstraint("too_many_dead_letters IN ('go on', 'stop')", "too_many_dead_letters"),
    CheckConstraint("dead_letter_share BETWEEN 0 AND 1", "dead_letter_share"),
    CheckConstraint("deep_audit_days > 0", "deep_audit_days"),
    CheckConstraint("least(rejected_days, repair_days, incident_days, build_days) > 0", "retention"),
    CheckConstraint("scrub_days > 0", "scrub_days"),
    comment="One row: which cluster the cursors speak of, and how the log is cut into segments.",
)

tokens = Table(
    "tokens",
    metadata,
    Column("token_id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("generation", Integer, nullable=False, comment="How often the name was rotated, from 1."),
    Column("kind", Text, nullable=False),
    Column("digest", BYTEA, nullable=False, comment="SHA-256 of the token, whose text is kept nowhere."),
    Column("hint", Text, nullable=False, comment="The first characters of the token."),
    Column("source", Text, nullable=False, comment="Name of the producer, recorded with input that is rejected."),
    Column("origins", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("rate", Integer, comment="Most events a second."),
    Column("created_at", TIME, nullable=False, server_default=func.now()),
    Column("created_by", Text, nullable=False, server_default=text("session_user")),
    Column("expires_at", TIME),
    Column("revoked_at", TIME),
    Column("last_used_at", TIME, comment="To the minute."),
    UniqueConstraint("name", "generation"),
    UniqueConstraint("digest"),
    CheckConstraint("kind IN ('secret', 'write_key')", "kind"),
    CheckConstraint("char_length(name) BETWEEN 1 AND 63", "name"),
    CheckConstraint("octet_length(digest) = 32", "digest"),
    CheckConstraint("rate > 0", "rate"),
    CheckConstraint("kind = 'secret' OR rate IS NOT NULL OR origins <> '{}'", "bounded"),
    comment="Tokens of the HTTP door.",
)
