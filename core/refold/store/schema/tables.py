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
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    Interval,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Sequence,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB, JSONPATH, TSTZMULTIRANGE
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
# Part of the ids of captured rows. Nothing reads the numbers in their order, so that a session may keep some.
capture_ordinals = Sequence("capture_ordinals", metadata=metadata, schema=SCHEMA, data_type=BigInteger, cache=32)

# `txid` comes before `position`: defaults are evaluated in this order, and a position that is drawn before
# its transaction has an id could land in a segment that was sealed in between.
events = Table(
    "events",
    metadata,
    # Id of the transaction that wrote the event; with `position` it orders the log for readers.
    Column("txid", Xid8, nullable=False, server_default=text("pg_current_xact_id()")),
    # Number of the event in the log, drawn from a sequence.
    Column("position", BigInteger, nullable=False, server_default=text("nextval('refold.events_position'::regclass)")),
    # Id of the event, which the producer chooses; the log takes each id once.
    Column("event_id", BYTEWISE, nullable=False),
    # Id of the user; NULL for an event without a user.
    Column("user_id", BYTEWISE),
    # What happened.
    Column("action", BYTEWISE, nullable=False),
    # When it happened, according to the producer.
    Column("ts", TIME, nullable=False),
    # Further attributes, as a JSON object.
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    # Version of the form of the event, which the producer chooses.
    Column("version", Integer, nullable=False, server_default=text("1")),
    # Start of the transaction that wrote the event.
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
    comment="The log: every event once, append-only; the only source of truth.",
)

event_ids = Table(
    "event_ids",
    metadata,
    # Id of the event.
    Column("event_id", BYTEWISE, primary_key=True),
    # Fingerprint of the content of the event (refold.digest).
    Column("digest", BigInteger, nullable=False),
    # Position of the event in the log, so that a missing event is missing from a known slice; 0: unknown.
    Column("position", BigInteger, nullable=False),
    # Rows come in the order of positions, or nearly.
    Index(
        "event_ids_range",
        "position",
        postgresql_using="brin",
        postgresql_with={"pages_per_range": "32", "autosummarize": "on"},
    ),
    comment="The ledger (dedup table): it takes each event id once; the digest tells a duplicate from a conflict.",
)

cold_ids = Table(
    "cold_ids",
    metadata,
    # Number of the bucket: see refold.cold_bucket.
    Column("bucket", Integer, primary_key=True, autoincrement=False),
    # Hashes of the ids (refold.cold_id), sorted.
    Column("ids", ARRAY(BigInteger), nullable=False),
    # Digest of the event of each (refold.cold_digest); 0: it was erased, and whatever comes is a duplicate.
    Column("digests", ARRAY(Integer), nullable=False),
    # Checksum of both (refold.cold_checksum).
    Column("checksum", Uuid, nullable=False),
    CheckConstraint("cardinality(ids) = cardinality(digests)", "pairs"),
    comment="The cold ledger: ids of purged events, as hashes in buckets. An id in it is refused for ever.",
)

cold_ranges = Table(
    "cold_ranges",
    metadata,
    # First position of the events that were purged together.
    Column("lower_position", BigInteger, primary_key=True, autoincrement=False),
    # First position behind them.
    Column("upper_position", BigInteger, nullable=False),
    # When their segment left the log.
    Column("purged_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    # When their ids were copied into the cold ledger.
    Column("copied_at", TIME),
    # Hashes that were added to the cold ledger then.
    Column("ids", BigInteger, nullable=False, server_default=text("0")),
    # Their sum.
    Column("sum", Numeric, nullable=False, server_default=text("0")),
    # First position whose id is in the ledger still.
    Column("released_to", BigInteger, nullable=False),
    CheckConstraint("lower_position < upper_position", "range"),
    CheckConstraint("released_to BETWEEN lower_position AND upper_position", "released"),
    CheckConstraint("copied_at IS NOT NULL OR released_to = lower_position", "copied"),
    comment="Ranges of positions whose events were purged, and how far their ids have moved to the cold ledger.",
)

acceptances = Table(
    "acceptances",
    metadata,
    # Number of the acceptance.
    Column("acceptance", BigInteger, Identity(always=True), primary_key=True),
    # Segment of the log, or the whole log after a recovery.
    Column("segment", Text, nullable=False),
    # Login that accepted the damage.
    Column("accepted_by", Text, nullable=False, server_default=text("session_user")),
    # When it was accepted.
    Column("accepted_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    # Reason that the person gave.
    Column("reason", Text, nullable=False),
    # Number of events that are missing from the log.
    Column("missing", BigInteger, nullable=False),
    # Number of events whose content or position had changed.
    Column("changed", BigInteger, nullable=False),
    # Number of events that the ledger did not know.
    Column("unknown", BigInteger, nullable=False),
    # The first events of each kind, and the sealed checksums from before.
    Column("details", JSONB, nullable=False),
    CheckConstraint("reason <> ''", "reason"),
    comment="Damage to the log that a person has accepted: who, when, why, and what was lost.",
)

lost_events = Table(
    "lost_events",
    metadata,
    # Id of the missing event. No foreign key: the guard of the ledger, which is append-only, protects it better.
    Column("event_id", BYTEWISE, primary_key=True),
    # The acceptance that names the event.
    Column("acceptance", BigInteger, ForeignKey("refold.acceptances.acceptance"), nullable=False),
    comment="Events whose loss from the log was accepted, by a person or a recovery. Their ids stay in the ledger.",
)

rejected = Table(
    "rejected",
    metadata,
    # Number of the record.
    Column("rejected_id", BigInteger, Identity(always=True), primary_key=True),
    # Name of the file or the producer.
    Column("source", Text, nullable=False),
    # Line of the file, or place in the array.
    Column("line", BigInteger, nullable=False),
    # Why it is not in the log: `conflict` or `invalid`.
    Column("answer", Text, nullable=False),
    # The error in words.
    Column("reason", Text, nullable=False),
    # The text of the input.
    Column("raw", Text, nullable=False),
    # How often the same input has come.
    Column("times", Integer, nullable=False, server_default=text("1")),
    # When it came first.
    Column("first_seen", TIME, nullable=False, server_default=func.now()),
    # When it came last.
    Column("last_seen", TIME, nullable=False, server_default=func.now()),
    CheckConstraint("answer IN ('conflict', 'invalid')", "answer"),
    Index("rejected_by_answer", "answer", "last_seen"),
    Index("rejected_once", "source", "line", "answer", text("md5(raw)"), unique=True),
    comment="Input that was rejected: conflicts and invalid events, with raw text, reason, source and line.",
)

builds = Table(
    "builds",
    metadata,
    # Id of the build.
    Column("build_id", BigInteger, Identity(always=True), primary_key=True),
    # Name of the projection.
    Column("projection", Text, nullable=False),
    # Hash of its definition and of the definitions that it reads.
    Column("fingerprint", Text, nullable=False),
    # Number of the build among those of its projection.
    Column("number", Integer, nullable=False),
    # State of the build.
    Column("state", Text, nullable=False, server_default=text("'building'")),
    # Name of its table in the schema `refold_builds`.
    Column("table_name", Text, nullable=False),
    # Language of its definition.
    Column("language", Text, nullable=False),
    # Text of its definition, as it was deployed.
    Column("definition", Text, nullable=False),
    # How workers keep it up to date.
    Column("upkeep", Text, nullable=False),
    # The build that it reads; NULL: the log.
    Column("upstream_id", BigInteger, ForeignKey("refold.builds.build_id")),
    # Columns of its stream that its query reads, according to Postgres. NULL: a transform, or not recorded.
    Column("reads", ARRAY(Text)),
    # Whether its first load is complete, so that it takes pages.
    Column("loaded", Boolean, nullable=False, server_default=text("false")),
    # Steps of its first load that are done.
    Column("load_step", Integer, nullable=False, server_default=text("0")),
    # Steps of its first load in all; NULL: not known, or loaded in the order of the stream.
    Column("load_steps", Integer),
    # The deployment with which it goes live.
    Column("deployment", BigInteger, ForeignKey("refold.deployments.deployment"), nullable=False),
    # When it was created.
    Column("created_at", TIME, nullable=False, server_default=func.now()),
    # When it went live.
    Column("promoted_at", TIME),
    # When it was retired.
    Column("retired_at", TIME),
    # The deployment that retired it.
    Column("retired_by", BigInteger, ForeignKey("refold.deployments.deployment")),
    # The error that stops it.
    Column("error", Text),
    # Number of events that it leaves out (waiting or dropped), for sessions that hold its lock.
    Column("dead_letters", Integer, nullable=False, server_default=text("0")),
    # Number of these that wait.
    Column("waiting_letters", Integer, nullable=False, server_default=text("0")),
    # The sinks to which pages send the keys of rows that they change.
    Column("sinks", ARRAY(BigInteger), nullable=False, server_default=text("'{}'::bigint[]")),
    # First position of the log that is not in its base; of a build that reads another's table always 1.
    Column("floor", BigInteger, nullable=False, server_default=text("1")),
    # First slice that is still kept; NULL: all are. It only grows: only a new build has the slices before.
    Column("retained_from", Integer),
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
    comment="One row for each build: a physical table that holds a projection at one fingerprint. Pages lock it.",
)

# Added, never updated: while somebody holds an old snapshot nothing can be vacuumed, and a row that every page
# updates becomes slower with every version. The newest row of a build is its cursor: see refold.builds_now.
cursors = Table(
    "cursors",
    metadata,
    # Id of the build. No foreign key, which every page would check: see sql/functions/forget_build.sql.
    Column("build_id", BigInteger, nullable=False),
    # Number of the row; the greatest of a build is its cursor.
    Column("number", BigInteger, nullable=False),
    # Snapshot that was read to its end: see refold.model.stream.cursor.
    Column("done", PgSnapshot, nullable=False, server_default=text("'1:1:'::pg_snapshot")),
    # Snapshot that is being read; NULL: none.
    Column("target", PgSnapshot),
    # Key that was reached in it: txid.
    Column("progress_txid", Xid8),
    # Key that was reached in it: position.
    Column("progress_position", BigInteger),
    # Key that was reached in it: ordinal.
    Column("progress_ordinal", Integer),
    # Events applied since the build was created; moved in the transaction that writes the rows, like the next three.
    Column("events_applied", BigInteger, nullable=False, server_default=text("0")),
    # Pages applied since the build was created.
    Column("pages_applied", BigInteger, nullable=False, server_default=text("0")),
    # Time that pages took since the build was created, in milliseconds.
    Column("apply_ms", Double, nullable=False, server_default=text("0")),
    # When events were applied last.
    Column("applied_at", TIME),
    # When the row was added.
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
    # Number of the deployment.
    Column("deployment", BigInteger, Identity(always=True), primary_key=True),
    # The command that began it.
    Column("kind", Text, nullable=False),
    # Login that ran the command.
    Column("requested_by", Text, nullable=False, server_default=text("session_user")),
    # When it began.
    Column("requested_at", TIME, nullable=False, server_default=func.now()),
    # Whether workers make its builds live when they have caught up.
    Column("promote", Boolean, nullable=False, server_default=text("true")),
    # When its builds went live.
    Column("promoted_at", TIME),
    # When its command ended with an error: no worker makes its builds live after that.
    Column("given_up_at", TIME),
    # That error, and what to do.
    Column("given_up_because", Text),
    Column("views", JSONB, comment="analysts' views that go live in the same transaction: name and text of each file"),
    CheckConstraint("kind IN ('deploy', 'rebuild', 'promote', 'rollback', 'drop', 'rename')", "kind"),
    comment="Builds that were asked for together and go live together, in one transaction.",
)

repairs = Table(
    "repairs",
    metadata,
    # Number of the repair.
    Column("repair_id", BigInteger, Identity(always=True), primary_key=True),
    # Id of the build.
    Column("build_id", BigInteger, ForeignKey("refold.builds.build_id"), nullable=False),
    # Name of its projection at that time.
    Column("projection", Text, nullable=False),
    # The healed table: the metric's, or a set of members beside it.
    Column("relation", Text, nullable=False),
    # How the row differed from the query.
    Column("kind", Text, nullable=False),
    # Columns that identify the row.
    Column("key", JSONB, nullable=False),
    # The row before healing; NULL: missing.
    Column("before", JSONB),
    # The row after healing; NULL: removed.
    Column("after", JSONB),
    # Login that healed it.
    Column("repaired_by", Text, nullable=False, server_default=text("session_user")),
    # When it was healed.
    Column("repaired_at", TIME, nullable=False, server_default=func.now()),
    CheckConstraint("kind IN ('missing', 'orphan', 'drifted')", "kind"),
    Index("repairs_by_time", "repaired_at"),
    # What a rollback asks, and whoever removes a build.
    Index("repairs_by_build", "build_id", "repaired_at"),
    comment="Rows that reconcile has healed: who, when, and the row before and after.",
)

dead_letters = Table(
    "dead_letters",
    metadata,
    # Number of the dead letter.
    Column("dead_letter_id", BigInteger, Identity(always=True), primary_key=True),
    # Id of the build that could not process the event.
    Column("build_id", BigInteger, ForeignKey("refold.builds.build_id"), nullable=False),
    # Id of the row in the build's stream.
    Column("event_id", BYTEWISE, nullable=False),
    # Coordinates of the row in the stream: txid.
    Column("txid", Xid8, nullable=False),
    # Coordinates of the row in the stream: position.
    Column("position", BigInteger, nullable=False),
    # Coordinates of the row in the stream: ordinal; 0 in the log.
    Column("ordinal", Integer, nullable=False),
    # State of the dead letter.
    Column("state", Text, nullable=False, server_default=text("'waiting'")),
    # How often the event has failed.
    Column("attempts", Integer, nullable=False, server_default=text("1")),
    # SQLSTATE of the error, if Postgres raised it.
    Column("sqlstate", Text),
    # Message of the error.
    Column("error", Text, nullable=False),
    # Traceback of the error, if a transform raised it.
    Column("traceback", Text),
    # When it failed first.
    Column("first_failed_at", TIME, nullable=False, server_default=func.now()),
    # When it failed last.
    Column("last_failed_at", TIME, nullable=False, server_default=func.now()),
    # When it was released or dropped.
    Column("ended_at", TIME),
    # Login that released or dropped it.
    Column("ended_by", Text),
    # Reason for dropping it.
    Column("reason", Text),
    Column("event", JSONB, comment="The event, copied before its segment leaves the log."),
    UniqueConstraint("build_id", "event_id"),
    CheckConstraint("state IN ('waiting', 'released', 'dropped')", "state"),
    CheckConstraint("(state = 'waiting') = (ended_at IS NULL)", "ended"),
    CheckConstraint("state <> 'dropped' OR reason IS NOT NULL", "dropped_for_a_reason"),
    # Those that have ended stay, and are not counted again and again.
    Index("dead_letters_waiting", "build_id", "first_failed_at", postgresql_where=text("state = 'waiting'")),
    comment="Events that one build could not process, kept with the error; never dropped without a reason.",
)

incidents = Table(
    "incidents",
    metadata,
    # Number of the incident.
    Column("incident_id", BigInteger, Identity(always=True), primary_key=True),
    # Kind of the fault: see the page Incidents.
    Column("kind", Text, nullable=False),
    # The projection, segment, session or database that it concerns.
    Column("subject", Text, nullable=False),
    # When the fault began.
    Column("started_at", TIME, nullable=False),
    # When it was detected.
    Column("detected_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    # Name of the duty or command that detected it.
    Column("detected_by", Text, nullable=False),
    # When it was resolved; NULL: open.
    Column("resolved_at", TIME),
    # Name of the duty or command that resolved it.
    Column("resolved_by", Text),
    # What was found.
    Column("evidence", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    # What resolved it.
    Column("outcome", JSONB),
    Column("acknowledged_at", TIME, comment="When a person took it on."),
    Column("acknowledged_by", Text),
    CheckConstraint(
        "kind IN ('drift', 'dead_letters', 'stalled', 'lag', 'held_back', 'held_snapshot', 'missed_notification',"
        " 'log_damage', 'impure_transform', 'foreign_cluster', 'hot_key', 'hidden', 'pressure', 'capture_gap', 'sink',"
        " 'undelivered', 'outbox_collapsed', 'anomaly', 'archive', 'archive_damage', 'backfill_paused',"
        " 'canary_aborted', 'purge')",
        "kind",
    ),
    CheckConstraint("started_at <= detected_at AND detected_at <= resolved_at", "in_order"),
    CheckConstraint("(resolved_at IS NULL) = (resolved_by IS NULL)", "resolved_by_somebody"),
    CheckConstraint("(acknowledged_at IS NULL) = (acknowledged_by IS NULL)", "acknowledged_by_somebody"),
    Index("incidents_one_open", "kind", "subject", unique=True, postgresql_where=text("resolved_at IS NULL")),
    Index("incidents_by_time", "detected_at"),
    # After which proofs count.
    Index("incidents_of_the_log", "resolved_at", postgresql_where=text("kind = 'log_damage'")),
    comment="Faults with the times of start, detection and resolution, who saw and resolved them, and evidence.",
)

actions = Table(
    "actions",
    metadata,
    Column("action_id", BigInteger, Identity(always=True), primary_key=True),
    Column("at", TIME, nullable=False, server_default=func.clock_timestamp(), comment="When it began."),
    Column("by", Text, nullable=False, server_default=text("session_user"), comment="The login, or the proxy's user."),
    Column("command", Text, nullable=False, comment="Words of the command, also where a page was used."),
    Column("arguments", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("outcome", Text, comment="What came of it; NULL: it runs, or was lost."),
    # No foreign key: incidents are forgotten, and what people did is not.
    Column("incident_id", BigInteger, comment="The incident that it was about."),
    CheckConstraint("command <> ''", "command"),
    CheckConstraint("jsonb_typeof(arguments) = 'object'", "arguments"),
    Index("actions_by_time", "at"),
    comment="What people did, by commands and on the dashboard.",
)

forgotten = Table(
    "forgotten",
    metadata,
    # Day (UTC) of the removed records.
    Column("day", Date, nullable=False),
    # Table of the records.
    Column("what", Text, nullable=False),
    # Kind or answer of the records.
    Column("kind", Text, nullable=False),
    # Number of removed records.
    Column("number", BigInteger, nullable=False),
    # Of incidents: the sum of the seconds from start to detection.
    Column("detecting", Double, nullable=False, server_default=text("0")),
    # Of incidents: the sum of the seconds from detection to resolution.
    Column("recovering", Double, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("day", "what", "kind"),
    CheckConstraint("what IN ('rejected', 'repairs', 'incidents')", "what"),
    comment="Numbers of old records that were deleted, by day (UTC) and kind; reports still count them.",
)

duties = Table(
    "duties",
    metadata,
    # Name of the duty.
    Column("name", Text, primary_key=True),
    # When its last run started.
    Column("started_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    # When that run ended; NULL: it is running, or was lost.
    Column("ended_at", TIME),
    # Process id of the server process of that run.
    Column("pid", Integer, nullable=False, server_default=text("pg_backend_pid()")),
    # Failures in a row.
    Column("failures", Integer, nullable=False, server_default=text("0")),
    # Error of the last failure.
    Column("error", Text),
    comment="The last run of each duty, in any worker, and how it ended.",
)

# Producers only insert here, so that none of them waits for another's row; a duty sums up minutes that are over.
duplicates = Table(
    "duplicates",
    metadata,
    # When they were refused.
    Column("at", TIME, nullable=False, server_default=func.clock_timestamp()),
    # Number of refused events.
    Column("events", BigInteger, nullable=False),
    # Whether the row is the sum of a minute.
    Column("folded", Boolean, nullable=False, server_default=text("false")),
    Index("duplicates_by_time", "at"),
    comment="Duplicates that were refused: a row for each statement, later a row for each minute.",
)

batches = Table(
    "batches",
    metadata,
    # When the statement ran.
    Column("at", TIME, nullable=False, server_default=func.clock_timestamp()),
    # Number of events in the statement.
    Column("events", BigInteger, nullable=False),
    # False: the statement found too little room, and `events` is the room that it found.
    Column("stored", Boolean, nullable=False, server_default=text("true")),
    Index("batches_by_time", "at"),
    comment="Large statements of producers, by which room in the log is prepared for the next.",
)

traces = Table(
    "traces",
    metadata,
    # Id of the transaction that appended the events.
    Column("txid", Xid8, nullable=False),
    # Position of the statement's last event.
    Column("position", BigInteger, nullable=False),
    # Position of its first event; positions in between may belong to other transactions.
    Column("first_position", BigInteger, nullable=False),
    # Number of its events.
    Column("events", BigInteger, nullable=False),
    Column("trace_id", Uuid, nullable=False),
    # Span that appended them (their creation context), as a signed integer.
    Column("span_id", BigInteger, nullable=False),
    Column("recorded_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    PrimaryKeyConstraint("txid", "position"),
    Index("traces_by_trace", "trace_id"),
    # Rows come in the order of time, and only the oldest are looked for.
    Index("traces_by_time", "recorded_at", postgresql_using="brin"),
    comment="Statements that appended events in a sampled trace: a row for each.",
)

log_ends = Table(
    "log_ends",
    metadata,
    # Position at which the log ended until segments were created.
    Column("log_end", BigInteger, primary_key=True, autoincrement=False),
    # Positions that were to be kept ready at that time; NULL: it is known whether a statement failed at this end.
    Column("reserve", BigInteger),
    # Id that no transaction had yet when the sequence had passed this end; NULL: the sequence has not passed it.
    Column("passed", Xid8),
    # Id below which every transaction had ended when the segments were created.
    Column("ended", Xid8, nullable=False),
    # Position that no event of these transactions exceeds.
    Column("drawn", BigInteger, nullable=False),
    # Those that have yet to be judged (refold.learn_room).
    Index("log_ends_open", "log_end", postgresql_where=text("reserve IS NOT NULL")),
    # How far the first events after a transaction reach (refold.first_unread).
    Index("log_ends_by_ended", "ended", "log_end"),
    comment="Former ends of the log's room: whether a statement failed there, and where earlier transactions end.",
)

latencies = Table(
    "latencies",
    metadata,
    # The minute in which the events were applied.
    Column("minute", TIME, nullable=False),
    # Id of the build. No foreign key, whose locks on builds would conflict with those of pages.
    Column("build_id", BigInteger, nullable=False),
    # Part of the way: `waiting` for the page, `applying` it, or `fresh` for both.
    Column("stage", Text, nullable=False),
    # Bucket of the duration on a log scale: see refold.model.quantiles.
    Column("bucket", Integer, nullable=False),
    # Number of events in the bucket.
    Column("events", BigInteger, nullable=False),
    PrimaryKeyConstraint("minute", "build_id", "stage", "bucket"),
    CheckConstraint("stage IN ('waiting', 'applying', 'fresh')", "stage"),
    comment="How long events took to reach a build: counts in buckets on a log scale (refold.model.quantiles).",
)

totals = Table(
    "totals",
    metadata,
    Column("what", Text, nullable=False),
    Column("projection", Text, nullable=False, comment="Empty: of none."),
    Column("kind", Text, nullable=False, comment="Answer, kind of difference or of incident; empty: none."),
    Column("number", BigInteger, nullable=False),
    PrimaryKeyConstraint("what", "projection", "kind"),
    CheckConstraint("what IN ('duplicates', 'rejected', 'healed', 'incidents', 'archive')", "what"),
    postgresql_with={"fillfactor": "50"},
    comment="Numbers of all records that there ever were, also of those that are deleted. A duty adds to them.",
)

total_marks = Table(
    "total_marks",
    metadata,
    Column("what", Text, primary_key=True),
    Column("upto", BigInteger, nullable=False, comment="Number of the last record, or minute, that is counted."),
    Column("next", BigInteger, nullable=False, comment="Up to which is counted next, once it cannot change."),
    # Id of a transaction that began after `next` was noted.
    Column("passed", Xid8),
    postgresql_with={"fillfactor": "50"},
    comment="Up to where refold.totals and refold.latency_totals count.",
)

# The cursor is one as those of builds, and so exact whatever order transactions end in.
counted_events = Table(
    "counted_events",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("events", BigInteger, nullable=False, comment="Events that the log has taken, up to the cursor."),
    Column("done", PgSnapshot, comment="NULL: the next run begins at the present end of the log."),
    Column("target", PgSnapshot),
    Column("progress_txid", Xid8),
    Column("progress_position", BigInteger),
    CheckConstraint("singleton", "singleton"),
    postgresql_with={"fillfactor": "50"},
    comment="One row: the number of events, and a cursor that says which are counted. See refold.events_total.",
)

latency_totals = Table(
    "latency_totals",
    metadata,
    Column("build_id", BigInteger, nullable=False),
    Column("stage", Text, nullable=False),
    Column("counts", ARRAY(BigInteger), nullable=False, comment="By the edges of refold.model.quantiles.EDGES."),
    Column("seconds", Double, nullable=False, comment="Sum of the durations."),
    PrimaryKeyConstraint("build_id", "stage"),
    postgresql_with={"fillfactor": "50"},
    comment="The latencies of all minutes that are counted, also of those that have been deleted since.",
)

canaries = Table(
    "canaries",
    metadata,
    Column("canary_id", BigInteger, Identity(always=True), primary_key=True),
    Column("started_by", Text, nullable=False, server_default=text("session_user")),
    Column("started_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    Column("steps", ARRAY(Integer), nullable=False, comment="Percent of readers who see the candidates, step by step."),
    Column("step", Integer, nullable=False, server_default=text("1"), comment="Number of the step."),
    Column("soak", Interval, nullable=False, comment="Least time at each step."),
    Column("expect", ARRAY(Text), nullable=False, comment="Which differences are expected; empty: a person decides."),
    Column("state", Text, nullable=False, server_default=text("'running'")),
    Column("because", Text, comment="Why it is held, waits, or has ended."),
    Column("stepped_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    Column("checked_at", TIME, comment="When the rules were checked last."),
    Column("ended_at", TIME),
    Column(
        "at_most",
        Integer,
        nullable=False,
        server_default=text("100"),
        comment="Percent of readers that no step may exceed.",
    ),
    Column("limited_at", TIME, comment="When this limit was set."),
    CheckConstraint("state IN ('running', 'held', 'promoted', 'aborted', 'superseded')", "state"),
    CheckConstraint("(state IN ('running', 'held')) = (ended_at IS NULL)", "ended"),
    CheckConstraint("step BETWEEN 1 AND cardinality(steps) AND 0 <= ALL (steps) AND 100 >= ALL (steps)", "steps"),
    CheckConstraint("at_most BETWEEN 0 AND 100", "at_most"),
    Index("canaries_open", "canary_id", postgresql_where=text("ended_at IS NULL")),
    comment="Candidates that were shown to some readers before they went live, and how that ended.",
)

canary_builds = Table(
    "canary_builds",
    metadata,
    Column("canary_id", BigInteger, ForeignKey("refold.canaries.canary_id"), nullable=False),
    Column("projection", Text, nullable=False),
    # No foreign key: builds are forgotten, and what people were shown is not.
    Column("build_id", BigInteger, nullable=False, comment="The candidate."),
    Column(
        "exposed",
        Boolean,
        nullable=False,
        comment="Whether metrics.NAME shows it to some readers; else only metrics_canary.NAME does.",
    ),
    Column("shown", Boolean, nullable=False, server_default=text("true"), comment="Whether these views exist."),
    Column("dead_letters", Integer, nullable=False, comment="Events that it left out when the canary began."),
    Column(
        "marks",
        JSONB,
        nullable=False,
        server_default=text("'[]'::jsonb"),
        comment="Events and milliseconds of candidate and live build, at each of the last checks.",
    ),
    Column("verdict", JSONB, comment="What the last check found, with rows that differ."),
    PrimaryKeyConstraint("projection", "canary_id"),
    Index("canary_builds_shown", "projection", unique=True, postgresql_where=text("shown")),
    comment="The candidates of each canary.",
)

checksums = Table(
    "checksums",
    metadata,
    # Id of the build.
    Column("build_id", BigInteger, ForeignKey("refold.builds.build_id"), nullable=False),
    # 0: the table that analysts see; 1 and up: its sets of members; -1: the rows read from the stream.
    Column("relation", SmallInteger, nullable=False),
    # Number of the slice.
    Column("slice", Integer, nullable=False),
    # Number of rows in the slice.
    Column("rows", BigInteger, nullable=False),
    # Sum of the hashes of these rows.
    Column("hash", Numeric, nullable=False),
    PrimaryKeyConstraint("build_id", "relation", "slice"),
    postgresql_with={"fillfactor": "50"},
    comment="Rows and sum of hashes of each slice that a build has written or read; add checksum_changes.",
)

checksum_changes = Table(
    "checksum_changes",
    metadata,
    # Id of the build.
    Column("build_id", BigInteger, nullable=False),
    # The table: see `refold.checksums`.
    Column("relation", SmallInteger, nullable=False),
    # Number of the slice.
    Column("slice", Integer, nullable=False),
    # Change of the number of rows.
    Column("rows", BigInteger, nullable=False),
    # Change of the sum of hashes.
    Column("hash", Numeric, nullable=False),
    Index("checksum_changes_by_build", "build_id"),
    postgresql_with={"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "5000"},
    comment="Changes of checksums by pages, which are not added up yet.",
)

audits = Table(
    "audits",
    metadata,
    # Id of the build.
    Column("build_id", BigInteger, ForeignKey("refold.builds.build_id"), nullable=False),
    # True: the rolling audit of the workers; false: an audit by a command.
    Column("rolling", Boolean, nullable=False),
    # When this round began.
    Column("began_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    # When its last step began or ended.
    Column("stepped_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    # Last slice that was audited in this round; NULL: none yet.
    Column("upto_slice", Integer),
    # Number of steps done in this round.
    Column("steps", Integer, nullable=False, server_default=text("0")),
    # When this round ended; NULL: it is not finished.
    Column("finished_at", TIME),
    # Slices that differed in this round, all healed.
    Column("differed", Integer, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("build_id", "rolling"),
    comment="Progress of the deep audit of each build, so that an interrupted audit continues.",
)

quick_audits = Table(
    "quick_audits",
    metadata,
    # Id of the build.
    Column("build_id", BigInteger, ForeignKey("refold.builds.build_id"), primary_key=True, autoincrement=False),
    # Slices in a portion: see refold.engine.reconcile.portions.
    Column("together", Integer, nullable=False),
    # Blocks of the table in a statement; NULL: all of them.
    Column("blocks", BigInteger),
    # Last slice that was audited in this round; NULL: none yet.
    Column("upto_slice", Integer),
    # Whether all slices of this round have agreed so far.
    Column("clean", Boolean, nullable=False),
    Column("began_at", TIME, comment="Instant of the first snapshot of this round; NULL: not known."),
    comment="Progress of the quick audit of builds whose tables are too large for one statement.",
)

# Added, never updated, as cursors are. No foreign key: its check could wait for a page, or fail in the snapshot of the
# audit, which is older than the newest version of the build's row.
proofs = Table(
    "proofs",
    metadata,
    Column("build_id", BigInteger, nullable=False),
    Column("depth", Text, nullable=False),
    Column("began_at", TIME, nullable=False, comment="Instant of its oldest snapshot."),
    Column("ended_at", TIME, nullable=False),
    Column("upstream_id", BigInteger, comment="The build that it read; NULL: the log."),
    Column("rows", BigInteger, nullable=False, comment="Rows of all its tables, as its checksums say."),
    Column("slices", Integer, nullable=False),
    Column("differed", Integer, nullable=False, comment="Slices that differed; all are healed."),
    PrimaryKeyConstraint("build_id", "depth", "began_at"),
    CheckConstraint("depth IN ('quick', 'deep')", "depth"),
    CheckConstraint("began_at <= ended_at", "in_order"),
    CheckConstraint("least(rows, slices, differed) >= 0", "counted"),
    comment="Audits that covered all slices of a build, whose differences are healed; see refold.proofs_now.",
)

proof_hours = Table(
    "proof_hours",
    metadata,
    Column("build_id", BigInteger, nullable=False),
    Column("depth", Text, nullable=False),
    Column("hour", TIME, nullable=False),
    Column("proofs", Integer, nullable=False),
    Column("differed", BigInteger, nullable=False, comment="Sum of the slices that differed."),
    PrimaryKeyConstraint("build_id", "depth", "hour"),
    comment="Older proofs of each build, by the hour of their end.",
)

sealed_slices = Table(
    "sealed_slices",
    metadata,
    # Number of the slice of positions: see refold.model.stream.slices.
    Column("slice", Integer, primary_key=True, autoincrement=False),
    # Id of a transaction that began after the sequence had passed the slice's end: see refold.store.log.seal.
    Column("passed", Xid8, nullable=False),
    # When it was sealed; NULL: not yet.
    Column("sealed_at", TIME),
    # Number of events in the slice.
    Column("events", BigInteger),
    # Txid that no event in the slice exceeds.
    Column("upto", Xid8),
    # Sum of the hashes of the ids in the slice.
    Column("ids", Numeric),
    # Sum of the hashes of the whole events in the slice.
    Column("hash", Numeric),
    # When its events were last compared with these checksums and with the ledger.
    Column("scrubbed_at", TIME),
    CheckConstraint("num_nulls(sealed_at, events, upto, ids, hash) IN (0, 5)", "whole"),
    # Which positions a transaction cannot have (refold.positions_since).
    Index("sealed_slices_by_passed", "passed", "slice"),
    Index("sealed_slices_by_time", "sealed_at", "slice"),
    comment="Checksums of the slices of the log to which no transaction can write any more.",
)

archive_store = Table(
    "archive_store",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("location", Text, nullable=False, comment="The store that was claimed."),
    Column("owner", Text, nullable=False, comment="Names the claim, in the store and in the names of files."),
    Column("turns", ARRAY(Text), nullable=False, comment="What the store may hold as the newest turn of this owner."),
    Column("claimed_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    Column("claimed_by", Text, nullable=False, server_default=text("session_user")),
    Column("holder", Text, comment="Who writes the archive."),
    Column("leased_until", TIME),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("failing_since", TIME),
    Column("retry_at", TIME, comment="The next attempt."),
    Column("error", Text, comment="What the store said last."),
    CheckConstraint("singleton", "singleton"),
    CheckConstraint("(failures = 0) = (failing_since IS NULL)", "failing"),
    CheckConstraint("(holder IS NULL) = (leased_until IS NULL)", "lease"),
    comment="One row, once an archive is claimed: whose the store is, who writes, and since when it fails.",
)

archives = Table(
    "archives",
    metadata,
    Column("lower_position", BigInteger, nullable=False, comment="First position of the segment."),
    Column("upper_position", BigInteger, nullable=False, comment="First position behind it."),
    Column("generation", Integer, nullable=False, comment="From 1; each file of a segment has its own."),
    Column("state", Text, nullable=False),
    Column("location", Text, nullable=False, comment="Name of the file in the store. No other attempt has it."),
    Column(
        "rewritten",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="The file has transaction ids from before a recovery, and the log has new ones.",
    ),
    Column("bytes", BigInteger, comment="Size of the file."),
    Column("sha256", BYTEA, comment="SHA-256 of the file."),
    Column("events", BigInteger),
    Column("upto", Xid8, comment="Greatest transaction id of its events, as the log has them."),
    Column("ids", Numeric, comment="Sum of the hashes of the ids."),
    Column("hash", Numeric, comment="Sum of the hashes of the whole events."),
    Column("first_ts", TIME),
    Column("last_ts", TIME),
    Column("began_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    Column("written_at", TIME),
    Column("proved_at", TIME, comment="When its rows were read back, and agreed with the sealed checksums."),
    Column("verified_at", TIME, comment="When the checksums of its border slices had agreed too."),
    Column("checked_at", TIME, comment="When the file was last compared with its size and SHA-256."),
    Column("purged_at", TIME, comment="When the segment left the log."),
    PrimaryKeyConstraint("lower_position", "generation"),
    UniqueConstraint("location"),
    CheckConstraint("lower_position < upper_position", "range"),
    CheckConstraint("generation > 0", "generation"),
    CheckConstraint("state IN ('begun', 'written', 'verified', 'purged', 'replaced', 'gone')", "state"),
    CheckConstraint("state <> 'written' OR num_nulls(written_at, bytes, sha256) = 0", "written"),
    CheckConstraint(
        "state NOT IN ('verified', 'purged')"
        " OR num_nulls(bytes, sha256, events, ids, hash, proved_at, verified_at) = 0",
        "verified",
    ),
    CheckConstraint("(state = 'purged') = (purged_at IS NOT NULL)", "purged"),
    # One file of a segment counts.
    Index(
        "archives_current",
        "lower_position",
        unique=True,
        postgresql_where=text("state IN ('begun', 'written', 'verified')"),
    ),
    # The log begins where the last one ends; no two begin at the same position.
    Index("archives_purged", "lower_position", unique=True, postgresql_where=text("state = 'purged'")),
    comment="The manifest of the archive: files that hold segments of the log, and how far each is proved.",
)

bases = Table(
    "bases",
    metadata,
    Column("build_id", BigInteger, ForeignKey("refold.builds.build_id", ondelete="CASCADE"), primary_key=True),
    Column("folded", BigInteger, nullable=False, comment="First position that is not in the base's tables."),
    Column("upto", BigInteger, nullable=False, comment="End of the segment that is being folded into them."),
    Column("events", BigInteger, nullable=False, server_default=text("0"), comment="Events of it that were read."),
    Column("ids", Numeric, nullable=False, server_default=text("0"), comment="Sum of the hashes of their positions."),
    Column("hash", Numeric, nullable=False, server_default=text("0"), comment="Sum of the hashes of these events."),
    Column(
        "stale",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="An event of this segment has become a dead letter, or was released, since it was folded.",
    ),
    CheckConstraint("folded <= upto", "range"),
    comment="How far events are folded into the bases of builds, ahead of the purge that makes these count.",
)

retentions = Table(
    "retentions",
    metadata,
    Column("projection", Text, primary_key=True),
    Column("keep", Interval, comment="How long its rows are kept, by the day of their key."),
    Column("keep_from", Date, comment="The first day whose rows are kept."),
    Column("set_by", Text, nullable=False, server_default=text("session_user")),
    Column("set_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    CheckConstraint("num_nonnulls(keep, keep_from) = 1", "one"),
    CheckConstraint("keep >= '1 day'::interval", "keep"),
    CheckConstraint("isfinite(keep_from)", "keep_from"),
    comment="How long the rows of metrics are kept. Of a metric that is not here, all rows are.",
)

archive_slices = Table(
    "archive_slices",
    metadata,
    Column("lower_position", BigInteger, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("slice", Integer, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("upto", Xid8, nullable=False),
    Column("ids", Numeric, nullable=False),
    Column("hash", Numeric, nullable=False),
    PrimaryKeyConstraint("lower_position", "generation", "slice"),
    ForeignKeyConstraint(
        ["lower_position", "generation"],
        ["refold.archives.lower_position", "refold.archives.generation"],
        ondelete="CASCADE",
    ),
    # The parts of a slice that a border of segments cuts.
    Index("archive_slices_by_slice", "slice"),
    comment="Checksums of the slices that each proved file holds, or of its part of a slice; see sealed_slices.",
)

# From the migration on, so that a backup from before the first erasure has it too.
erasure_key = Table(
    "erasure_key",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("inner_pad", BYTEA, nullable=False),
    Column("outer_pad", BYTEA, nullable=False),
    CheckConstraint("singleton", "singleton"),
    comment="The key of the HMAC-SHA256 by which erased people and events are known again, as its two pads.",
)

erasures = Table(
    "erasures",
    metadata,
    Column("erasure_id", BigInteger, Identity(always=True), primary_key=True),
    Column(
        "name",
        Uuid,
        nullable=False,
        server_default=func.gen_random_uuid(),
        comment="Names it in every database, export and store.",
    ),
    Column("subject", BYTEA, nullable=False, comment="HMAC-SHA256 of the user id."),
    Column("mode", Text, nullable=False),
    Column("fields", ARRAY(Text), nullable=False, comment="Fields of metadata in which others name the person."),
    Column("macs", ARRAY(BYTEA), nullable=False, comment="HMAC-SHA256 of what each of these fields holds then."),
    Column("keeps", ARRAY(Text), nullable=False, comment="Fields of the person's metadata that stay."),
    Column("reason", Text, nullable=False),
    Column("requested_by", Text, nullable=False, server_default=text("session_user")),
    Column("requested_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    Column("step", Text, nullable=False, server_default=text("'log'"), comment="What is done next, or `done`."),
    Column("finished_at", TIME),
    Column(
        "evidence",
        JSONB,
        nullable=False,
        server_default=text("'{}'::jsonb"),
        comment="What was found and done; the proof, once it is done.",
    ),
    UniqueConstraint("name"),
    CheckConstraint("mode IN ('anonymise', 'delete')", "mode"),
    CheckConstraint("step IN ('log', 'archive', 'vacuum', 'proof', 'done')", "step"),
    CheckConstraint("(step = 'done') = (finished_at IS NOT NULL)", "finished"),
    CheckConstraint("octet_length(subject) = 32", "subject"),
    CheckConstraint("cardinality(fields) = cardinality(macs)", "fields"),
    CheckConstraint("reason <> ''", "reason"),
    Index("erasures_unfinished", "subject", unique=True, postgresql_where=text("finished_at IS NULL")),
    comment="Erasures of people: who asked for each, why, how far it is, and the proof. Never the person.",
)

erased_events = Table(
    "erased_events",
    metadata,
    Column("erasure_id", BigInteger, ForeignKey("refold.erasures.erasure_id"), nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("mac", BYTEA, nullable=False, comment="HMAC-SHA256 of the event's id, as it came."),
    Column(
        "mention",
        Boolean,
        nullable=False,
        comment="Another's event, of which only the fields that name the person change.",
    ),
    Column(
        "renamed",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="Its id held the person: the ledger has another in its place.",
    ),
    Column(
        "witness",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="Changed last: until then the log itself says who the person is, and nothing else has to.",
    ),
    Column("done", Boolean, nullable=False, server_default=text("false")),
    Column("digest", BigInteger, comment="Of what the log has in its place; NULL: nothing."),
    PrimaryKeyConstraint("erasure_id", "position"),
    CheckConstraint("octet_length(mac) = 32", "mac"),
    Index("erased_events_by_position", "position"),
    # What a producer's retry is looked up by, where the ledger does not have the id any more.
    Index("erased_events_renamed", "mac", postgresql_where=text("renamed")),
    comment="Events that erasures changed or removed. The ledger has the digest 0 for each.",
)

erasure_notices = Table(
    "erasure_notices",
    metadata,
    Column("erasure_id", BigInteger, ForeignKey("refold.erasures.erasure_id"), nullable=False),
    Column("sink_id", BigInteger, ForeignKey("refold.sinks.sink_id", ondelete="CASCADE"), nullable=False),
    Column("told_at", TIME, comment="When the receiver answered."),
    Column("taken", Boolean, comment="Whether it confirmed; false: it refuses the notice."),
    PrimaryKeyConstraint("sink_id", "erasure_id"),
    CheckConstraint("(told_at IS NULL) = (taken IS NULL)", "told"),
    Index("erasure_notices_waiting", "sink_id", postgresql_where=text("told_at IS NULL")),
    comment="Which webhooks are told of which erasure, once each.",
)

settings = Table(
    "settings",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("system_identifier", BigInteger, nullable=False),
    Column("segment_size", BigInteger, nullable=False, server_default=text("1048576")),
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
    # After which records are removed: rejected input since it was seen last, repairs and letters that were released,
    # incidents since they were over, builds since they were retired (of those whose tables were dropped).
    Column("rejected_days", Integer, nullable=False, server_default=text("90")),
    Column("repair_days", Integer, nullable=False, server_default=text("400")),
    Column("incident_days", Integer, nullable=False, server_default=text("400")),
    Column("build_days", Integer, nullable=False, server_default=text("90")),
    # In which all of the log is scrubbed once.
    Column("scrub_days", Integer, nullable=False, server_default=text("7")),
    # Seconds behind at which producers are refused; null: late metrics are better than refused events.
    Column("lag_stop", Integer),
    # Bytes that the database and its WAL may take together; null: unknown.
    Column("disk_limit", BigInteger),
    # Beyond these the messages of a sink are dropped, and its receiver is brought up to date by comparison.
    Column("outbox_messages", Integer, nullable=False, server_default=text("10000")),
    Column("outbox_mib", Integer, nullable=False, server_default=text("256")),
    Column("outbox_hours", Integer, nullable=False, server_default=text("24")),
    # After which traces are removed.
    Column("trace_days", Integer, nullable=False, server_default=text("7")),
    # False alarms a week that the tests for anomalies may give, of all series together; 0 tests nothing.
    Column("anomaly_budget", Double, nullable=False, server_default=text("1")),
    # Where the archive is: a path, or an address such as s3://bucket/prefix; null: there is none.
    Column("archive", Text),
    # Seconds since a segment was sealed, after which it is archived.
    Column("archive_after", Integer, nullable=False, server_default=text("86400")),
    # So long after a segment was sealed it may leave the log, once it is archived; NULL: it stays.
    Column("keep_log", Interval),
    # Buckets of the cold ledger, a power of two; null: it is chosen when the first events are purged. Then it stays.
    Column("cold_buckets", Integer),
    # What happens to an event of a version that is unknown, if its action has contracts.
    Column("unknown_versions", Text, nullable=False, server_default=text("'warn'")),
    # Fields of an erased person's metadata that stay.
    Column("erasure_keeps", ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")),
    # So long backups of the database are kept; NULL: refold does not know.
    Column("backups_kept", Interval),
    # So long the archive's bucket keeps former versions of objects; NULL: refold does not know.
    Column("versions_kept", Interval),
    # What this server's hash functions made of some values when they hashed what is kept: see refold.hash_probe.
    Column("hash_probe", ARRAY(BigInteger)),
    CheckConstraint("singleton", "singleton"),
    CheckConstraint("least(lag_limit, stalled_after, held_back_after, impure_sample) >= 0", "limits"),
    CheckConstraint("held_snapshot_after >= 0", "held_snapshot_after"),
    CheckConstraint("latency_days > 0", "latency_days"),
    CheckConstraint("anomaly_budget >= 0 AND anomaly_budget <= 1000", "anomaly_budget"),
    CheckConstraint("segment_size > 0", "segment_size"),
    CheckConstraint("segments_ahead > 0", "segments_ahead"),
    CheckConstraint("max_dead_letters >= 0", "max_dead_letters"),
    CheckConstraint("too_many_dead_letters IN ('go on', 'stop')", "too_many_dead_letters"),
    CheckConstraint("dead_letter_share BETWEEN 0 AND 1", "dead_letter_share"),
    CheckConstraint("deep_audit_days > 0", "deep_audit_days"),
    CheckConstraint("least(rejected_days, repair_days, incident_days, build_days) > 0", "retention"),
    CheckConstraint("scrub_days > 0", "scrub_days"),
    CheckConstraint("lag_stop > lag_limit", "lag_stop"),
    CheckConstraint("disk_limit > 0", "disk_limit"),
    CheckConstraint("least(outbox_messages, outbox_mib, outbox_hours) > 0", "outbox"),
    CheckConstraint("trace_days > 0", "trace_days"),
    CheckConstraint("archive_after >= 0", "archive_after"),
    CheckConstraint("keep_log >= '0 s'::interval", "keep_log"),
    CheckConstraint("least(backups_kept, versions_kept) >= '0 s'::interval", "kept"),
    CheckConstraint("cold_buckets BETWEEN 16 AND 16777216 AND cold_buckets & (cold_buckets - 1) = 0", "cold_buckets"),
    CheckConstraint("unknown_versions IN ('accept', 'warn', 'reject')", "unknown_versions"),
    comment="One row: the cluster that the cursors belong to, the size of segments, and all limits.",
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

# A row a signal, updated every few seconds; producers read all of them.
pressure_signals = Table(
    "pressure_signals",
    metadata,
    Column("signal", Text, primary_key=True),
    Column("level", SmallInteger, nullable=False, comment="0 fine, 1 bulk waits, 2 producers are refused."),
    Column("value", Double, nullable=False, comment="What was measured: seconds, or the used part."),
    Column("slow_at", Double, nullable=False, comment="Value from which bulk waits."),
    Column("stop_at", Double, comment="Value from which producers are refused."),
    Column("since", TIME, nullable=False, server_default=func.now(), comment="When the level was reached, UTC."),
    Column("seen_at", TIME, nullable=False, server_default=func.now(), comment="When it was last measured, UTC."),
    CheckConstraint("level BETWEEN 0 AND 2", "level"),
    postgresql_with={"fillfactor": "50"},
    comment="What holds producers back: one row a signal, measured by a duty of workers. See refold.pressure.",
)

captures = Table(
    "captures",
    metadata,
    Column("capture_id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("table_schema", Text, nullable=False),
    Column("table_name", Text, nullable=False),
    Column("definition", Text, nullable=False, comment="Text of its file, as it was deployed."),
    Column("fingerprint", Text, nullable=False, comment="Hash of the SQL that was generated."),
    Column("operations", ARRAY(Text), nullable=False),
    Column("key", ARRAY(Text), nullable=False, comment="Columns that identify a row; empty: no backfill."),
    Column("columns", ARRAY(Text), nullable=False, comment="Names and types of the table's columns at the deploy."),
    Column("functions", JSONB, nullable=False, comment="MD5 of the body of each function, by its name."),
    Column("triggers", JSONB, nullable=False, comment="Names of the triggers of each table, by the table."),
    Column("two_phase", Boolean, nullable=False, comment="Whether its events come without a NOTIFY."),
    Column("created_at", TIME, nullable=False, server_default=func.now()),
    Column("changed_at", TIME, nullable=False, server_default=func.now()),
    Column("changed_by", Text, nullable=False, server_default=text("session_user")),
    UniqueConstraint("name"),
    CheckConstraint("name ~ '^[a-z_][a-z0-9_]{0,39}$'", "name"),
    CheckConstraint("operations <> '{}' AND operations <@ '{insert,update,delete,truncate}'::text[]", "operations"),
    comment="Captured tables, with what was generated for each; `refold doctor` compares.",
)

# Writers of captured tables only insert here, so that none of them waits for another's row.
capture_gaps = Table(
    "capture_gaps",
    metadata,
    Column("gap_id", BigInteger, Identity(always=True), primary_key=True),
    # No foreign key, whose lock on the capture would make writers wait for a deploy.
    Column("capture_id", BigInteger, nullable=False),
    Column("at", TIME, nullable=False, server_default=func.clock_timestamp()),
    Column("txid", Xid8, nullable=False, server_default=text("pg_current_xact_id()")),
    Column("operation", Text, comment="Operation of the statement without events; null: a pause by command."),
    Column(
        "pauses", Boolean, nullable=False, server_default=text("false"), comment="The capture pauses while it is true."
    ),
    Column("sqlstate", Text, comment="SQLSTATE of the error; null: the capture was paused."),
    Column("error", Text),
    CheckConstraint("operation IN ('insert', 'update', 'delete', 'truncate')", "operation"),
    Index("capture_gaps_pausing", "capture_id", postgresql_where=text("pauses")),
    Index("capture_gaps_by_capture", "capture_id", "gap_id"),
    Index("capture_gaps_failed", "capture_id", "gap_id", postgresql_where=text("sqlstate IS NOT NULL")),
    comment="Statements on captured tables without events, and pauses; a backfill that begins later closes them.",
)

backfills = Table(
    "backfills",
    metadata,
    Column("backfill_id", BigInteger, Identity(always=True), primary_key=True),
    Column("capture_id", BigInteger, ForeignKey("refold.captures.capture_id", ondelete="CASCADE"), nullable=False),
    Column("started_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    Column("snapshot", PgSnapshot, nullable=False, comment="Gaps of transactions in it are closed at the end."),
    Column("last", ARRAY(Text), comment="Key of the last row that was read; null: none yet."),
    Column("seen", BigInteger, nullable=False, server_default=text("0"), comment="Rows that were read."),
    Column("added", BigInteger, nullable=False, server_default=text("0"), comment="Rows without an event until then."),
    Column("stepped_at", TIME),
    Column("finished_at", TIME),
    CheckConstraint("added <= seen", "added"),
    Index("backfills_one_open", "capture_id", unique=True, postgresql_where=text("finished_at IS NULL")),
    comment="Backfills of captures: how far each has read its table, in the order of the key.",
)

file_backfills = Table(
    "file_backfills",
    metadata,
    Column("backfill_id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'staging'")),
    Column("files", JSONB, nullable=False, comment="Name, size and records of each file, in order."),
    Column("options", JSONB, nullable=False, comment="How the files were read, as it was given."),
    Column("total", BigInteger, nullable=False, server_default=text("0"), comment="Records that are staged."),
    Column("invalid", BigInteger, nullable=False, server_default=text("0"), comment="Of these, no events."),
    Column("first_ts", TIME, comment="When the first of its events happened."),
    Column("last_ts", TIME),
    Column("created_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    Column("created_by", Text, nullable=False, server_default=text("session_user")),
    Column("checked_at", TIME),
    Column("findings", JSONB, comment="What the check found; it may hold keys and values."),
    Column("mark", BigInteger, nullable=False, server_default=text("0"), comment="Last record that is answered."),
    Column("accepted", BigInteger, nullable=False, server_default=text("0")),
    Column("duplicates", BigInteger, nullable=False, server_default=text("0")),
    Column("conflicts", BigInteger, nullable=False, server_default=text("0")),
    Column("rate_limit", Integer, comment="Records a second that were asked for at most."),
    Column("freshness_limit", Double, comment="Seconds that live metrics may be behind."),
    Column("batch", Integer, comment="Records in a transaction, at present."),
    Column("per_second", Double, comment="Records a second over the last minute."),
    Column("because", Text, comment="Why it is slow, or paused."),
    Column(
        "ran",
        TSTZMULTIRANGE,
        nullable=False,
        server_default=text("'{}'::tstzmultirange"),
        comment="When it ran: what came then is no part of what usually comes.",
    ),
    Column("stepped_at", TIME),
    Column("ended_at", TIME),
    Column("ended_by", Text),
    CheckConstraint("name ~ '^[a-z_][a-z0-9_]{0,39}$'", "name"),
    CheckConstraint("state IN ('staging', 'staged', 'checked', 'running', 'paused', 'done', 'aborted')", "state"),
    CheckConstraint("mark BETWEEN 0 AND total AND (state <> 'done' OR mark = total)", "mark"),
    CheckConstraint("state <> 'checked' OR checked_at IS NOT NULL", "checked"),
    CheckConstraint("(state IN ('done', 'aborted')) = (ended_at IS NOT NULL)", "ended"),
    Index("file_backfills_one_of_a_name", "name", unique=True, postgresql_where=text("ended_at IS NULL")),
    Index("file_backfills_one_runs", "state", unique=True, postgresql_where=text("state = 'running'")),
    postgresql_with={"fillfactor": "50"},
    comment="Backfills from files: what was staged, what the check found, and how far each has run.",
)

sinks = Table(
    "sinks",
    metadata,
    Column("sink_id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("projection", Text, nullable=False),
    Column("grain", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("definition", Text, nullable=False, comment="Text of its file, as it was deployed."),
    Column(
        "once", Boolean, nullable=False, server_default=text("false"), comment="Whether another build gives no old row."
    ),
    Column("created_at", TIME, nullable=False, server_default=func.now()),
    Column("changed_at", TIME, nullable=False, server_default=func.now()),
    Column("changed_by", Text, nullable=False, server_default=text("session_user")),
    UniqueConstraint("name"),
    CheckConstraint("name ~ '^[a-z_][a-z0-9_]{0,39}$'", "name"),
    CheckConstraint("grain IN ('rows', 'events')", "grain"),
    comment="Sinks: each delivers a metric to a receiver. Deliverers lock its row for a moment.",
)

# Added, never updated, as cursors are. Who adds the row with the next number has taken the step.
sink_states = Table(
    "sink_states",
    metadata,
    Column("sink_id", BigInteger, ForeignKey("refold.sinks.sink_id", ondelete="CASCADE"), nullable=False),
    Column("number", BigInteger, nullable=False, comment="The greatest of a sink is its state."),
    Column("condition", Text, nullable=False),
    Column("following", Boolean, nullable=False, comment="False: slices are compared before messages."),
    Column("build_id", BigInteger, comment="The build whose rows are delivered."),
    Column("epoch", BigInteger, nullable=False),
    Column("holder", Text, comment="Who delivers."),
    Column("leased_until", TIME),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("failing_since", TIME),
    Column("retry_at", TIME, comment="The next attempt."),
    Column("error", Text, comment="What the receiver said."),
    Column("status", Text),
    Column("batch", Integer, nullable=False, comment="Most rows of a delivery."),
    Column("delivered", BigInteger, nullable=False, server_default=text("0")),
    Column("delivered_at", TIME),
    Column("tokens", ARRAY(Text), nullable=False, comment="What the receiver may hold as its owner's token."),
    Column("given_epoch", BigInteger, comment="The version that the receiver confirmed last."),
    Column("given_number", BigInteger),
    Column(
        "passed",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="Number of a message: none waits up to it, or will.",
    ),
    Column("done", Text, comment="Cursor of a sink of events: what it has delivered."),
    Column("target", Text),
    Column("progress_txid", BigInteger),
    Column("progress_position", BigInteger),
    Column("progress_ordinal", Integer),
    Column("at", TIME, nullable=False, server_default=func.clock_timestamp()),
    PrimaryKeyConstraint("sink_id", "number"),
    CheckConstraint("condition IN ('active', 'paused', 'stopped')", "condition"),
    CheckConstraint("(failures = 0) = (failing_since IS NULL)", "failing"),
    CheckConstraint("batch > 0", "batch"),
    postgresql_with={"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "5000"},
    comment="States of sinks: a row for every step, of which the newest counts.",
)

sink_checksums = Table(
    "sink_checksums",
    metadata,
    Column("sink_id", BigInteger, ForeignKey("refold.sinks.sink_id", ondelete="CASCADE"), nullable=False),
    Column("slice", Integer, nullable=False),
    Column("rows", BigInteger, comment="NULL: not known."),
    Column("hash", Numeric),
    PrimaryKeyConstraint("sink_id", "slice"),
    CheckConstraint("(rows IS NULL) = (hash IS NULL)", "whole"),
    Index("sink_checksums_unknown", "sink_id", "slice", postgresql_where=text("rows IS NULL")),
    postgresql_with={"fillfactor": "50"},
    comment="Checksums of the slices as the receiver has confirmed them.",
)

sink_keys = Table(
    "sink_keys",
    metadata,
    Column("sink_id", BigInteger, ForeignKey("refold.sinks.sink_id", ondelete="CASCADE"), nullable=False),
    Column("digest", Text, nullable=False, comment="MD5 of the key."),
    Column("key", JSONB, nullable=False),
    Column("slice", Integer, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("number", BigInteger, nullable=False),
    PrimaryKeyConstraint("sink_id", "digest"),
    Index("sink_keys_by_slice", "sink_id", "slice"),
    postgresql_with={"fillfactor": "70"},
    comment="Keys that a receiver was given that cannot tell what it has.",
)

undelivered = Table(
    "undelivered",
    metadata,
    Column("undelivered_id", BigInteger, Identity(always=True), primary_key=True),
    Column("sink_id", BigInteger, ForeignKey("refold.sinks.sink_id", ondelete="CASCADE"), nullable=False),
    Column("key", JSONB, nullable=False, comment="Key of the row that the receiver refuses."),
    Column("slice", Integer, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'waiting'")),
    Column("attempts", Integer, nullable=False, server_default=text("1")),
    Column("status", Text, nullable=False),
    Column("error", Text, nullable=False, comment="What the receiver said."),
    Column("first_failed_at", TIME, nullable=False, server_default=func.now()),
    Column("last_failed_at", TIME, nullable=False, server_default=func.now()),
    Column("ended_at", TIME),
    Column("ended_by", Text),
    Column("reason", Text, comment="Why it was dropped."),
    CheckConstraint("state IN ('waiting', 'delivered', 'dropped')", "state"),
    CheckConstraint("(state = 'waiting') = (ended_at IS NULL)", "ended"),
    CheckConstraint("(state = 'dropped') = (reason IS NOT NULL)", "reason"),
    Index(
        "undelivered_waiting",
        "sink_id",
        text("md5(key::text)"),
        unique=True,
        postgresql_where=text("state = 'waiting'"),
    ),
    comment="Rows that a receiver refused, set aside so that the others go on.",
)

series = Table(
    "series",
    metadata,
    Column("series_id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False, comment="What it counts; series of a kind are compared with each other."),
    Column("name", Text, nullable=False, comment="The action, the source, or the column and value of a metric."),
    Column("began_on", Date, nullable=False, comment="Its first day (UTC)."),
    Column("judged_on", Date, comment="The last day (UTC) that was judged; a day is judged once."),
    Column("muted_until", TIME, comment="Until then it opens no incident."),
    UniqueConstraint("kind", "name", name="series_once"),
    comment="Series that are watched for what is unusual.",
)

series_values = Table(
    "series_values",
    metadata,
    Column("series_id", BigInteger, ForeignKey("refold.series.series_id", ondelete="CASCADE"), nullable=False),
    Column("at", TIME, nullable=False, comment="Begin of the hour; of a metric, of the day."),
    Column("value", Double, nullable=False, comment="Events, or the value of the metric."),
    Column("delays", JSONB, comment="Of a source: events by the bucket of recorded_at - ts."),
    PrimaryKeyConstraint("series_id", "at"),
    postgresql_with={"fillfactor": "70"},
    comment="Values of the series, of the last 90 days.",
)

watch = Table(
    "watch",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("began_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    Column("read_at", TIME, comment="All events recorded until then are counted, but for those of open transactions."),
    Column("done", Text, nullable=False, comment="Cursor in the log."),
    Column("target", Text),
    Column("progress_txid", BigInteger),
    Column("progress_position", BigInteger),
    Column("progress_ordinal", Integer),
    Column("judged_until", TIME, comment="End of the last hour that was judged for silence; an hour is judged once."),
    CheckConstraint("singleton", "singleton"),
    comment="How far the log has been read for the series, and how far they have been judged.",
)

routes = Table(
    "routes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("least", Text, nullable=False, comment="Least level of the incidents that it is told."),
    Column("definition", Text, nullable=False, comment="Its part of notices.toml, as JSON, without secrets."),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("retry_at", TIME, comment="The next attempt, after a failure."),
    Column("error", Text, comment="What the receiver said last."),
    CheckConstraint("name ~ '^[a-z_][a-z0-9_]{0,39}$'", "name"),
    CheckConstraint("kind IN ('webhook', 'alertmanager', 'heartbeat')", "kind"),
    CheckConstraint("least IN ('page', 'ticket', 'none')", "least"),
    comment="Receivers of notices.",
)

notices = Table(
    "notices",
    metadata,
    Column("notice_id", BigInteger, Identity(always=True), primary_key=True),
    Column("incident_id", BigInteger, ForeignKey("refold.incidents.incident_id", ondelete="CASCADE"), nullable=False),
    Column("change", Text, nullable=False),
    Column("route", Text, ForeignKey("refold.routes.name", ondelete="CASCADE"), nullable=False),
    Column("level", Text, nullable=False),
    Column("due_at", TIME, nullable=False, comment="Not sent before: what ends by itself until then is not told."),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("sent_at", TIME, comment="When the receiver confirmed it, or it was left out."),
    Column("left_out", Boolean, nullable=False, server_default=text("false"), comment="Ended before it was due."),
    Column("error", Text),
    UniqueConstraint("incident_id", "change", "route", name="notices_once"),
    CheckConstraint("change IN ('opened', 'escalated', 'resolved')", "change"),
    CheckConstraint("sent_at IS NOT NULL OR NOT left_out", "left_out"),
    Index("notices_to_send", "route", "notice_id", postgresql_where=text("sent_at IS NULL")),
    comment="What routes are told of incidents, written in the transaction of the incident.",
)

contracts = Table(
    "contracts",
    metadata,
    # The action of the events, and the version that they say they have.
    Column("action", BYTEWISE, primary_key=True),
    Column("version", Integer, primary_key=True),
    # JSON Schema of their metadata, as it was registered.
    Column("schema", JSONB, nullable=False),
    # Fingerprint of what the schema checks.
    Column("digest", Text, nullable=False),
    # What happens to events that break it.
    Column("level", Text, nullable=False),
    # Owner and day from the file.
    Column("about", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    # What the database evaluates: a predicate of the metadata, and the fields that it may have (null: any).
    Column("predicate", JSONPATH, nullable=False),
    Column("keys", ARRAY(Text)),
    # The same, rule by rule, with the words for messages; null in place of the fields.
    Column("conditions", ARRAY(JSONPATH), nullable=False),
    Column("rules", JSONB, nullable=False),
    Column("registered_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    CheckConstraint("char_length(action) BETWEEN 1 AND 255", "action"),
    CheckConstraint("version BETWEEN 1 AND 32767", "version"),
    CheckConstraint("level IN ('off', 'warn', 'enforce')", "level"),
    CheckConstraint("cardinality(conditions) = jsonb_array_length(rules)", "rules"),
    # A predicate that is compressed is decompressed for every event.
    postgresql_with={"toast_tuple_target": "8160"},
    comment="Contracts: what the metadata of a version of an action must be.",
)

# Producers only insert here, so that none of them waits for another's row; a duty sums up.
violations = Table(
    "violations",
    metadata,
    Column("action", BYTEWISE, nullable=False),
    Column("version", Integer, nullable=False),
    # The rule that was broken first, without values of the event.
    Column("rule", Text, nullable=False),
    # Whether the events were refused.
    Column("refused", Boolean, nullable=False),
    # Begin of the hour.
    Column("hour", TIME, nullable=False),
    Column("events", BigInteger, nullable=False),
    # One of the events.
    Column("event_id", BYTEWISE, nullable=False),
    # When the first and the last of them came.
    Column("first_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    Column("last_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    # Whether the row is the sum of an hour.
    Column("folded", Boolean, nullable=False, server_default=text("false")),
    Index("violations_by_hour", "hour"),
    comment="Events that broke their contract: a row for each statement and rule, later a row for each hour.",
)
