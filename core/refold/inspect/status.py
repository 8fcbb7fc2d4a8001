"""The state of the database: builds, the log, workers, and transactions that block events."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

from refold.inspect.archive import ArchiveStatus, archive_status
from refold.inspect.sinks import SinkStatus, sink_statuses
from refold.postgres.rows import one_row
from refold.postgres.session import plan_by_index
from refold.postgres.snapshot import snapshot
from refold.postgres.standby import Standby, standby
from refold.store import captures, erasures, file_backfills
from refold.store.canaries import SHOWN_NOW
from refold.store.captures import Gaps
from refold.store.incidents import inspects
from refold.store.log.blocking_transactions import BlockingTransaction, blocking_transactions
from refold.store.pressure import Pressure, pressure

EXACT_BELOW = 5_000
"""Most positions of the log that are counted; the length of a longer log is estimated."""
DUTIES_LATE = 60.0
"""Seconds without a started duty after which workers count as frozen; a duty is due every five seconds."""
COUNTED = 1_000
"""Most rejected records that are counted."""


@dataclass(frozen=True, slots=True)
class BuildStatus:
    """One build that refold keeps up to date.

    Args:
        projection: name of the projection.
        table: its table in the schema refold_builds.
        state: `building` or `live`.
        upkeep: kind of upkeep.
        reads: stream that it reads: `events` or a projection.
        loaded: whether the first load is done.
        load_step: completed steps of the first load.
        load_steps: number of steps, if known.
        lag_events: events of the log that it has yet to apply; an estimate beyond 100; None during the first load.
        lag_exact: whether they were counted; None during the first load.
        lag_seconds: age of the oldest of them, seconds.
        events_applied: events applied page by page since the build was created.
        rate: events per second while pages were applied (`since` gives the rate between two statuses).
        applied_at: when a page was last applied.
        promotes: whether it goes live automatically when it has caught up.
        refused: why its deployment was given up, and what to do; None if it was not. An observer sees only that it was.
        shown: whether the view `metrics.<projection>` reads this build. Doctor compares the two.
        views: views that read it.
        error: why a worker could not apply its next page; None without an error. An observer sees only the error's
            class.
        dead_letters: events that it could not process, waiting as dead letters.
        proved_at: the latest instant at which it, with all that it reads, was as it must be, by any audit; None: not
            proved.
        proved_seconds: age of that instant, seconds.
        deep_proved_at: the same by deep audits alone.
        kept_from: the first day whose rows it keeps; None: it keeps all.
        canary: percent of readers who see the candidate of the metric, of a canary that runs; of builds that are not
            live, None but for the candidate.
    """

    build_id: int
    projection: str
    table: str
    state: str
    upkeep: str
    reads: str
    loaded: bool
    load_step: int
    load_steps: int | None
    lag_events: int | None
    lag_exact: bool | None
    lag_seconds: float | None
    events_applied: int
    rate: float | None
    applied_at: datetime | None
    promotes: bool
    refused: str | None
    shown: bool
    views: list[str]
    error: str | None
    dead_letters: int
    proved_at: datetime | None
    proved_seconds: float | None
    deep_proved_at: datetime | None
    kept_from: date | None
    canary: int | None


@dataclass(frozen=True, slots=True)
class BackfillStatus:
    """A backfill from files that is not over.

    Args:
        name: its name.
        state: `staging`, `staged`, `checked`, `running`, `interrupted` (its process is gone) or `paused`.
        total: staged records.
        mark: number of the last one that the log has answered.
        per_second: records a second over the last minute; None unless it runs.
        because: why it is slow, interrupted or paused.
    """

    name: str
    state: str
    total: int
    mark: int
    per_second: float | None
    because: str | None


@dataclass(frozen=True, slots=True)
class Status:
    """The database at one moment.

    Args:
        at: time of this status.
        builds: builds that refold keeps up to date.
        events: number of events in the log.
        events_exact: whether they were counted; otherwise an estimate.
        segments: segments of the log.
        segments_ahead: how many of them are still empty, prepared for later events.
        rejected: number of inputs ever rejected, by answer; a lower bound if more than `COUNTED` rows are kept.
        workers: sessions of workers.
        duties_seconds: time since a worker last started a duty, seconds; None if none ever did.
        lag_limit: seconds that a live metric may be behind (`refold.settings`).
        sessions: open transactions that block events, oldest first.
        prepared: prepared transactions that block events, oldest first.
        incidents: open incidents by kind.
        standby: how far the server is behind its primary; None on a primary.
        pressure: what holds producers back.
        gaps: captures that are paused or have statements without events, by name; an observer does not see errors.
        sinks: sinks with their states; an observer sees neither errors nor what waits.
        archive: the archive of the log; None: there is none.
        backfills: backfills from files that are not over.
        erasures: erasures of people that are not proved yet, by number: the step that is next.
    """

    at: datetime
    builds: list[BuildStatus]
    events: int
    events_exact: bool
    segments: int
    segments_ahead: int
    rejected: dict[str, int]
    workers: int
    duties_seconds: float | None
    lag_limit: int
    sessions: list[BlockingTransaction] = field(default_factory=list)
    prepared: list[BlockingTransaction] = field(default_factory=list)
    incidents: dict[str, int] = field(default_factory=dict)
    standby: Standby | None = None
    pressure: Pressure = field(default_factory=Pressure)
    gaps: dict[str, Gaps] = field(default_factory=dict)
    sinks: list[SinkStatus] = field(default_factory=list)
    archive: ArchiveStatus | None = None
    backfills: list[BackfillStatus] = field(default_factory=list)
    erasures: dict[int, str] = field(default_factory=dict)

    @property
    def late(self) -> list[BuildStatus]:
        """Return the live builds whose lag exceeds the limit, also when no worker runs."""
        return [
            build
            for build in self.builds
            if build.state == "live" and build.lag_seconds is not None and build.lag_seconds > self.lag_limit
        ]

    @property
    def hidden(self) -> list[str]:
        """Return the live metrics whose view is missing or reads another table."""
        return [build.projection for build in self.builds if build.state == "live" and not build.shown]

    @property
    def idle(self) -> bool:
        """Return whether workers are connected but idle: frozen, or cut off."""
        return self.workers > 0 and self.duties_seconds is not None and self.duties_seconds > DUTIES_LATE

    @property
    def alarming(self) -> bool:
        """Return whether an operator must act: an incident is open, or this status shows a problem."""
        seen = self.late or self.idle or self.hidden or any(build.error for build in self.builds)
        return bool(self.incidents or seen)

    def as_dict(self) -> dict[str, Any]:
        """Return the status as a dict for JSON."""
        return asdict(self) | {"alarming": self.alarming}

    def since(self, before: Status) -> Status:
        """Return this status with rates over the time since an earlier status."""
        seconds = (self.at - before.at).total_seconds()
        applied = {build.build_id: build.events_applied for build in before.builds}
        if seconds <= 0:
            return self
        builds = [
            replace(b, rate=(b.events_applied - applied[b.build_id]) / seconds) if b.build_id in applied else b
            for b in self.builds
        ]
        return replace(self, builds=builds)


def read(conn: psycopg.Connection) -> Status:
    """Read the status in one snapshot, without a lock that blocks another session.

    Args:
        conn: acts as one of `READERS`, in autocommit mode. The ages of other users' transactions need a login role
            with pg_read_all_stats.
    """
    with snapshot(conn):
        plan_by_index(conn)
        # First: who runs one is seen as it is now, and not in the snapshot.
        backfills = _backfills(conn)
        at, events, exact, segments, ahead, duties, limit = _row(conn, _LOG, EXACT_BELOW)
        builds = _builds(conn)
        rejected = conn.execute(_REJECTED.encode()).fetchall()
        incidents = conn.execute(
            "SELECT kind, count(*) FROM refold.incidents WHERE resolved_at IS NULL GROUP BY kind ORDER BY kind"
        ).fetchall()
        behind = standby(conn)
        held = pressure(conn)
        missing = captures.gaps(conn, most=captures.COUNTED)
        gaps = {one.name: missing[one.capture_id] for one in captures.every(conn) if one.capture_id in missing}
        delivered = sink_statuses(conn)
        archived = archive_status(conn)
        erased = erasures.steps_left(conn)
        sessions, prepared = blocking_transactions(conn)
        workers = _one(conn, WORKERS)
    return Status(
        at, builds, events, exact, segments, ahead, dict(rejected), workers, duties, limit, sessions, prepared,
        dict(incidents), behind, held, gaps, delivered, archived, backfills, erased,
    )  # fmt: skip


_BUILDS = """
WITH RECURSIVE canary AS MATERIALIZED ({canary}), standing (build_id, oid) AS (
    SELECT b.build_id, c.oid
    FROM refold.builds AS b
    JOIN pg_class AS c ON c.relname = b.table_name AND c.relnamespace = 'refold_builds'::regnamespace
    WHERE b.state IN ('building', 'live')
    UNION
    SELECT standing.build_id, r.ev_class
    FROM standing
    JOIN pg_depend AS d
      ON d.refclassid = 'pg_class'::regclass AND d.refobjid = standing.oid AND d.classid = 'pg_rewrite'::regclass
    JOIN pg_rewrite AS r ON r.oid = d.objid
), views AS (
    SELECT s.build_id, v.relname::text AS name, v.relnamespace::regnamespace::text AS schema
    FROM standing AS s
    JOIN pg_class AS v ON v.oid = s.oid AND v.relkind IN ('v', 'm')
)
SELECT b.build_id, b.projection, b.table_name AS table, b.state, b.upkeep, coalesce(u.projection, 'events') AS reads,
       b.loaded, b.load_step, b.load_steps, unread.events AS lag_events, unread.exact AS lag_exact,
       -- On a standby: at least as much as has yet to come from its primary.
       CASE WHEN b.loaded THEN
           coalesce(extract(epoch FROM clock_timestamp() - least(unread.oldest, refold.replayed_at())), 0)::float8
       END AS lag_seconds,
       b.events_applied, nullif(b.events_applied, 0) / nullif(b.apply_ms, 0) * 1000 AS rate, b.applied_at,
       d.promote AND d.given_up_at IS NULL AS promotes,
       CASE WHEN d.given_up_at IS NOT NULL AND b.state = 'building' THEN {refused} END AS refused,
       EXISTS (SELECT FROM views AS v WHERE v.build_id = b.build_id AND v.schema = 'metrics' AND v.name = b.projection)
           AS shown,
       ARRAY(SELECT CASE v.schema WHEN 'metrics' THEN v.name ELSE v.schema || '.' || v.name END
             FROM views AS v
             WHERE v.build_id = b.build_id AND NOT (v.schema = 'metrics' AND v.name = b.projection)
             ORDER BY 1) AS views,
       {error} AS error, b.waiting_letters AS dead_letters,
       proof.proved_at,
       CASE WHEN proof.proved_at IS NOT NULL THEN
           greatest(extract(epoch FROM clock_timestamp() - proof.proved_at), 0)::float8
       END AS proved_seconds,
       proof.deep_proved_at, date '1970-01-01' + b.retained_from AS kept_from,
       canary.percent AS canary
FROM refold.builds_now AS b
JOIN refold.deployments AS d ON d.deployment = b.deployment
LEFT JOIN refold.builds AS u ON u.build_id = b.upstream_id
LEFT JOIN canary ON canary.projection = b.projection AND (b.state = 'live' OR canary.build_id = b.build_id)
LEFT JOIN refold.unread_now() AS unread ON unread.build_id = b.build_id
LEFT JOIN refold.proofs_now AS proof ON proof.build_id = b.build_id
WHERE b.state IN ('building', 'live')
ORDER BY b.projection, b.build_id
"""

# One question: over a network each of them takes as long as the rest. Segments are counted in the catalog's index; how
# many are empty follows from their size, as it is now. A duty's start in the future was written by a clock that was
# ahead: it says nothing.
_LOG = """
SELECT clock_timestamp(), l.events, l.exact,
       (SELECT count(*)::integer FROM pg_inherits WHERE inhparent = 'refold.events'::regclass),
       greatest(0, (refold.log_end() - 1 - p.drawn) / s.segment_size)::integer,
       (SELECT extract(epoch FROM clock_timestamp() - max(d.started_at))::float8 FROM refold.duties AS d
        WHERE d.started_at <= clock_timestamp()),
       s.lag_limit
FROM refold.settings AS s
CROSS JOIN (SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS drawn FROM refold.events_position) AS p
CROSS JOIN refold.log_size(%s) AS l
"""

_REJECTED = f"""
SELECT a.answer, c.number + f.number
FROM unnest('{{conflict,invalid}}'::text[]) AS a (answer)
CROSS JOIN LATERAL (
    SELECT count(*) AS number
    FROM (SELECT FROM refold.rejected AS r WHERE r.answer = a.answer LIMIT {COUNTED + 1}) AS counted
) AS c
CROSS JOIN LATERAL (
    SELECT coalesce(sum(g.number), 0)::bigint AS number
    FROM refold.forgotten AS g WHERE g.what = 'rejected' AND g.kind = a.answer
) AS f
WHERE c.number + f.number > 0
ORDER BY 1
"""

WORKERS = """
SELECT count(*)::integer FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'refold worker'
"""
"""The number of workers' sessions."""


def _backfills(conn: psycopg.Connection) -> list[BackfillStatus]:
    return [
        BackfillStatus(
            one.name, one.state, one.total, one.mark, one.per_second if one.state == "running" else None, one.because
        )
        for one in file_backfills.as_told(conn, file_backfills.every(conn, open_only=True))
    ]


def _builds(conn: psycopg.Connection) -> list[BuildStatus]:
    detailed = inspects(conn)
    query = _BUILDS.replace("{canary}", SHOWN_NOW).replace("{error}", "b.error" if detailed else "b.failing")
    query = query.replace("{refused}", "coalesce(d.given_up_because, 'an error')" if detailed else "'an error'::text")
    with conn.cursor(row_factory=class_row(BuildStatus)) as cursor:
        return cursor.execute(query.encode()).fetchall()


def _row(conn: psycopg.Connection, query: str, *parameters: object) -> Any:
    row = one_row(conn, query.encode(), parameters or None)
    return row


def _one(conn: psycopg.Connection, query: str) -> Any:
    return _row(conn, query)[0]
