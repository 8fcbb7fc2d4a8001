"""What a scrape reads: figures of all builds and of the deployment, in one snapshot.

Whatever the length of the log and the number of builds, every statement reads a few pages a build.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from refold.inspect.archive import ArchiveFigures, archive_figures
from refold.inspect.status import WORKERS
from refold.inspect.traces import exemplars as latest_traces
from refold.model.quantiles import Histogram
from refold.model.sink.state import Condition
from refold.model.sink_queue import queue
from refold.postgres.rows import one_row
from refold.postgres.session import plan_by_index
from refold.postgres.snapshot import snapshot
from refold.store.incidents import KINDS
from refold.store.log.blocking_transactions import blocking_transactions
from refold.store.pressure import Pressure, pressure
from refold.store.retentions import WANTED_FROM
from refold.store.totals import TOGETHER, histograms, latency_totals

FINE, COARSE = 50, 250
"""Projections up to which each has histograms of all stages in steps of two, and of `fresh` in steps of four. Beyond,
all together have histograms, and single ones on request."""
STAGES = ("waiting", "applying", "fresh")
TIMEOUT_S = 4
"""Seconds after which a statement of a scrape is given up."""

_BUILDS = f"""
SELECT b.build_id, b.projection, coalesce(b.events_applied, 0) AS applied_events, b.pages_applied AS applied_pages,
       b.apply_ms / 1000 AS apply_seconds, u.events AS unread,
       -- On a standby: at least as much as has yet to come from its primary.
       greatest(extract(epoch FROM clock_timestamp() - least(u.oldest, refold.replayed_at())), 0)::float8 AS oldest_s,
       extract(epoch FROM b.applied_at)::float8 AS applied_at, b.dead_letters AS left_out,
       b.failing IS NOT NULL AS failing,
       extract(epoch FROM p.proved_at)::float8 AS proved_at,
       extract(epoch FROM p.deep_proved_at)::float8 AS deep_proved_at,
       -- pg_table_size() would wait for whoever has locked a table.
       (greatest(c.relpages, 0) + coalesce(greatest(t.relpages, 0), 0)) * current_setting('block_size')::bigint
           AS bytes,
       -- The slices of such a build are days since 1970.
       b.retained_from * 86400.0::float8 AS kept_from,
       extract(epoch FROM {WANTED_FROM})::float8 AS wanted_from
FROM refold.builds_now AS b
LEFT JOIN refold.retentions AS r ON r.projection = b.projection
LEFT JOIN refold.unread_now() AS u ON u.build_id = b.build_id
-- Proofs are of the build's table. While another view stands in its place, they say nothing about the metric.
LEFT JOIN refold.proofs_now AS p ON p.build_id = b.build_id AND b.projection <> ALL (ARRAY(
    SELECT i.subject FROM refold.incidents AS i WHERE i.kind = 'hidden' AND i.resolved_at IS NULL))
LEFT JOIN pg_class AS c ON c.relname = b.table_name AND c.relnamespace = 'refold_builds'::regnamespace
LEFT JOIN pg_class AS t ON t.oid = c.reltoastrelid
WHERE b.state = 'live'
ORDER BY b.projection
"""

# The minutes that are not in the totals yet.
_LATENCIES = """
SELECT l.build_id, l.stage, l.bucket, sum(l.events)::bigint FROM refold.latencies AS l
WHERE l.minute >= to_timestamp(%(upto)s * 60) AND l.build_id = ANY (%(builds)s) AND l.stage = ANY (%(stages)s)
GROUP BY l.build_id, l.stage, l.bucket
"""
_TOGETHER = """
SELECT %(together)s, l.stage, l.bucket, sum(l.events)::bigint FROM refold.latencies AS l
WHERE l.minute >= to_timestamp(%(upto)s * 60)
GROUP BY l.stage, l.bucket
"""

_DEPLOYMENT = """
SELECT refold.events_total(), s.lag_limit, s.system_identifier::text, current_setting('server_version'),
       (SELECT upto FROM refold.total_marks WHERE what = 'latencies')
FROM refold.settings AS s
"""

_DUTIES = """
SELECT name, extract(epoch FROM started_at)::float8 AS started_at, failures FROM refold.duties ORDER BY name
"""

_SINKS = """
SELECT s.sink_id, s.name AS sink, s.projection, s.condition, s.failures, s.delivered,
       extract(epoch FROM s.delivered_at)::float8 AS delivered_at, w.undelivered
FROM refold.sinks_now AS s
CROSS JOIN LATERAL (
    SELECT count(*) AS undelivered
    FROM (SELECT FROM refold.undelivered AS u WHERE u.sink_id = s.sink_id AND u.state = 'waiting' LIMIT 1000) AS counted
) AS w
ORDER BY s.name
"""

_MAY_COUNT = """
SELECT c.relname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'pgmq' AND c.relname = ANY (%s) AND has_schema_privilege(n.oid, 'USAGE')
  AND has_column_privilege(c.oid, 'msg_id', 'SELECT') AND has_column_privilege(c.oid, 'enqueued_at', 'SELECT')
"""


@dataclass(frozen=True, slots=True)
class BuildReading:
    """Figures of a live build. Times are in seconds, instants in seconds since 1970.

    Args:
        build_id: the build.
        projection: its projection.
        applied_events: events that pages have applied.
        applied_pages: pages that were applied.
        apply_seconds: time that they took.
        unread: events that it has not applied; an estimate beyond 100.
        oldest_s: age of the oldest of them; 0 without any.
        applied_at: when a page was applied last; None: never.
        left_out: events that are missing from it, as dead letters.
        failing: whether its next page fails.
        proved_at: the latest instant at which an audit found it as it must be; None: not proved.
        deep_proved_at: the same by deep audits.
        bytes: size of its table without indexes; None if it is gone.
        kept_from: the day from which it has rows; None: it has all.
        wanted_from: the day from which rows are wanted; None: all are.
    """

    build_id: int
    projection: str
    applied_events: int
    applied_pages: int
    apply_seconds: float
    unread: int | None
    oldest_s: float
    applied_at: float | None
    left_out: int
    failing: bool
    proved_at: float | None
    deep_proved_at: float | None
    bytes: int | None
    kept_from: float | None = None
    wanted_from: float | None = None


@dataclass(frozen=True, slots=True)
class DutyReading:
    """The last run of a duty."""

    name: str
    started_at: float
    failures: int


@dataclass(frozen=True, slots=True)
class SinkReading:
    """Figures of a sink.

    Args:
        sink_id: the sink.
        sink: its name.
        projection: the metric that it delivers.
        condition: `active`, `paused` or `stopped`.
        failures: failed deliveries since the last that succeeded; the circuit is open if there are any.
        delivered: rows delivered since it was created.
        delivered_at: when rows were delivered last, seconds since 1970; None: never.
        undelivered: rows that the receiver refused, at most 1,000.
        messages: messages in its queue, or a few more; None if the login may not see it.
        oldest_s: age of the oldest message, seconds; 0 without any.
    """

    sink_id: int
    sink: str
    projection: str
    condition: Condition
    failures: int
    delivered: int
    delivered_at: float | None
    undelivered: int
    messages: int | None = None
    oldest_s: float | None = None


@dataclass(frozen=True, slots=True)
class Exemplar:
    """A trace of one of the events that a histogram counts.

    Args:
        labels: such as `trace_id`.
        seconds: the event's duration.
        at: when it was observed, seconds since 1970.
    """

    labels: Mapping[str, str]
    seconds: float
    at: float


Exemplars = Mapping[tuple[str, str], Sequence[Exemplar]]
"""Exemplars by projection and stage."""


def of_traces(conn: psycopg.Connection) -> Exemplars:
    """Return the latest sampled trace of each metric as the exemplar of its freshness."""
    return {
        (metric, "fresh"): [Exemplar({"trace_id": one.trace_id}, one.seconds, one.at.timestamp())]
        for metric, one in latest_traces(conn).items()
    }


@dataclass(frozen=True, slots=True)
class Readings:
    """All figures of one scrape.

    Args:
        server: version of the server.
        cluster: identifier of the cluster.
        events: events that the log has taken; None: not counted yet.
        lag_limit: seconds that a metric may be behind.
        builds: the live builds, by projection.
        latencies: by projection (empty: all together) and stage.
        totals: numbers by what is counted, projection and kind.
        open_incidents: by kind.
        duties: by name.
        workers: sessions of workers.
        holders: open transactions that have written to the log.
        oldest_holder_s: age of the oldest, as far as the login may see ages; 0 without any, None if it may not.
        pressure: what holds producers back.
        sinks: by name.
        archive: the archive, and the end of the log.
        exemplars: traces of events in the histograms.
    """

    server: str
    cluster: str
    events: int | None
    lag_limit: int
    builds: Sequence[BuildReading]
    latencies: Mapping[tuple[str, str], Histogram]
    totals: Sequence[tuple[str, str, str, int]]
    open_incidents: Mapping[str, int]
    duties: Sequence[DutyReading]
    workers: int
    holders: int
    oldest_holder_s: float | None
    pressure: Pressure
    sinks: Sequence[SinkReading]
    archive: ArchiveFigures
    exemplars: Exemplars = field(default_factory=dict)


def read(
    conn: psycopg.Connection,
    *,
    only: Collection[str] = (),
    exemplars: Callable[[psycopg.Connection], Exemplars] = of_traces,
) -> Readings:
    """Read all figures in one snapshot.

    Args:
        conn: acts as refold_observer, in autocommit mode.
        only: projections to read, with the finest histograms; empty for all.
        exemplars: reads exemplars, in the same snapshot; it is not asked where there are many projections.

    Raises:
        psycopg.Error: the database is away, or a statement took longer than `TIMEOUT_S`.
    """
    with snapshot(conn):
        plan_by_index(conn)
        conn.execute(f"SET LOCAL statement_timeout = '{TIMEOUT_S}s'; SET LOCAL lock_timeout = '1s'".encode())
        events, lag_limit, cluster, server, counted = one_row(conn, _DEPLOYMENT)
        with conn.cursor(row_factory=class_row(BuildReading)) as cursor:
            builds = cursor.execute(_BUILDS.encode()).fetchall()
        if only:
            builds = [one for one in builds if one.projection in only]
        latencies = _latencies(conn, builds, counted, single=bool(only))
        totals = conn.execute("SELECT what, projection, kind, number FROM refold.totals ORDER BY 1, 2, 3").fetchall()
        opened = conn.execute(
            "SELECT kind, count(*) FROM refold.incidents WHERE resolved_at IS NULL GROUP BY kind"
        ).fetchall()
        with conn.cursor(row_factory=class_row(DutyReading)) as cursor:
            duties = cursor.execute(_DUTIES).fetchall()
        held = pressure(conn)
        sinks = _sinks(conn)
        archive = archive_figures(conn)
        traced = exemplars(conn) if len(builds) <= FINE else {}
        (workers,) = one_row(conn, WORKERS.encode())
        # From here on the session acts as the login.
        sessions, prepared = blocking_transactions(conn)
    ages = [one.seconds for one in (*sessions, *prepared)]
    return Readings(
        server, cluster, events, lag_limit, builds, latencies, totals,
        {**dict.fromkeys(KINDS, 0), **dict(opened)}, duties, workers, len(ages),
        None if None in ages else max((age for age in ages if age is not None), default=0.0), held, sinks, archive,
        traced,
    )  # fmt: skip


def _latencies(
    conn: psycopg.Connection, builds: Sequence[BuildReading], counted: int | None, *, single: bool
) -> dict[tuple[str, str], Histogram]:
    """Return the histograms by projection and stage, as fine as the number of projections allows."""
    if single or len(builds) <= COARSE:
        names = {one.build_id: one.projection for one in builds}
        stages, query = STAGES if single or len(builds) <= FINE else ("fresh",), _LATENCIES
    else:
        names, stages, query = {TOGETHER: ""}, STAGES, _TOGETHER
    known = latency_totals(conn, list(names))
    # Before a duty has counted a minute, none is old.
    parameters = {"upto": counted or 0, "builds": list(names), "stages": list(stages), "together": TOGETHER}
    latest = histograms(conn.execute(query, parameters).fetchall())
    return {
        (names[build_id], stage): known.get((build_id, stage), Histogram()) + latest.get((build_id, stage), Histogram())
        for build_id, stage in known.keys() | latest.keys()
        if stage in stages
    }


def _sinks(conn: psycopg.Connection) -> list[SinkReading]:
    with conn.cursor(row_factory=class_row(SinkReading)) as cursor:
        sinks = cursor.execute(_SINKS).fetchall()
    tables = {f"q_{queue(one.sink_id)}": one for one in sinks}
    readable = conn.execute(_MAY_COUNT, (list(tables),)).fetchall() if tables else []
    passed: dict[int, int] = dict(conn.execute("SELECT sink_id, passed FROM refold.sinks_now").fetchall())
    counted = {}
    for (table,) in readable:
        # Ids are drawn in order, and messages are deleted from the front: the difference is their number, or a little
        # more. To count them would read the whole queue.
        messages, oldest = one_row(
            conn,
            sql.SQL(
                "SELECT coalesce((SELECT max(msg_id) FROM {0} WHERE msg_id > %(passed)s) - q.msg_id + 1, 0),"
                " coalesce(greatest(extract(epoch FROM clock_timestamp() - q.enqueued_at), 0)::float8, 0)"
                " FROM (VALUES (1)) AS one LEFT JOIN"
                " (SELECT msg_id, enqueued_at FROM {0} WHERE msg_id > %(passed)s ORDER BY msg_id LIMIT 1) AS q ON true"
            ).format(sql.Identifier("pgmq", table)),
            {"passed": passed[tables[table].sink_id]},
        )
        counted[tables[table].sink_id] = (int(messages), float(oldest))
    return [
        replace(one, messages=counted[one.sink_id][0], oldest_s=counted[one.sink_id][1])
        if one.sink_id in counted
        else one
        for one in sinks
    ]
