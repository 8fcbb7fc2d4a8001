"""When the events of a trace, or one event, reached each metric: from rows alone, without a backend of traces.

The newest cursors of each build are kept, so recent moments are exact. Of older ones it is known that they are past,
and how long events took in that minute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import psycopg

from refold.errors import InputError
from refold.model.quantiles import quantile
from refold.model.stream.cursor import LAST_ORDINAL, Cursor, Key
from refold.postgres.rows import one_row
from refold.store.log.traces import of_event

MOST = 50
"""Most appends of a trace that are looked at."""
IDS = 20
"""Most event ids of an append."""
NEWEST = 20
"""Newest appends among which `exemplars` looks."""
KEPT = 10
"""Newest cursors of each build at which `exemplars` looks."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a metric made of the events of an append.

    Args:
        projection: the metric.
        reads: the build whose rows it reads; None for the log.
        state: `applied`, `applying` (a part of them), `waiting`, or `dead letter` (waiting for a person, or dropped).
        at: when the last of them was applied; None if it is not known, or not yet.
        seconds: from the append until then.
        by: if `at` is not known, a time by which they were applied.
        typical: if `at` is not known, seconds that half of the events needed in that minute; None without figures.
    """

    projection: str
    reads: str | None
    state: str
    at: datetime | None = None
    seconds: float | None = None
    by: datetime | None = None
    typical: float | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """Events that one statement appended, or one of them.

    Args:
        trace_id: of its trace, 32 hex digits; None if it was in no sampled trace, or that is longer ago than
            `trace_days`.
        span_id: of the span that appended them, 16 hex digits.
        at: when.
        events: their number.
        event_ids: the first of them.
        arrivals: by metric.
    """

    trace_id: str | None
    span_id: str | None
    at: datetime
    events: int
    event_ids: Sequence[str]
    arrivals: Sequence[Arrival] = field(default_factory=list)


class Exemplar(NamedTuple):
    """The latest sampled trace whose events reached a metric at a known moment.

    Args:
        trace_id: 32 hex digits.
        seconds: from the append until the events could be queried.
        at: when they could.
    """

    trace_id: str
    seconds: float
    at: datetime


class _Step(NamedTuple):
    cursor: Cursor
    moved_at: datetime
    number: int


class _Live(NamedTuple):
    build_id: int
    projection: str
    upstream: str | None
    steps: Sequence[_Step]


def look(conn: psycopg.Connection, name: str) -> list[Appended]:
    """Return the appends of a trace, oldest first, or the one of an event.

    Args:
        conn: acts as refold_inspector or refold_worker.
        name: id of an event, or of a trace (32 hex digits, or as a UUID). An event comes first.

    Raises:
        InputError: there is neither.
    """
    event = conn.execute(
        "SELECT e.txid::text::bigint, e.position, e.recorded_at FROM refold.event_ids AS k"
        " JOIN refold.events AS e ON e.position = k.position AND e.event_id = k.event_id WHERE k.event_id = %s",
        (name,),
    ).fetchone()
    live = _live(conn)
    if event is not None:
        txid, position, at = event
        context = of_event(conn, Key(txid, position, 0))
        trace_id = None if context is None else f"{context.trace_id:032x}"
        span_id = None if context is None else f"{context.span_id:016x}"
        arrivals = _arrivals(conn, live, Key(txid, position, 0), Key(txid, position, LAST_ORDINAL), at)
        return [Appended(trace_id, span_id, at, 1, [name], arrivals)]
    rows = _rows(conn, name)
    if not rows:
        if _purged(conn, name):
            raise InputError(
                f"the event {name!r} was purged from the log, and with it the way to its trace",
                remedy="Give the id of the trace; traces are kept for `trace_days` of refold.settings.",
            )
        raise InputError(
            f"there is neither an event nor a trace {name!r}",
            remedy="Traces are kept for `trace_days` of refold.settings, and only those that are sampled.",
        )
    return [_appended(conn, live, row) for row in rows]


def _purged(conn: psycopg.Connection, event_id: str) -> bool:
    """Return whether an id is that of an event which was purged."""
    return bool(
        one_row(
            conn,
            "SELECT EXISTS (SELECT FROM refold.event_ids WHERE event_id = %(id)s"
            " AND position >= 1 AND position < refold.log_floor())"
            " OR EXISTS (SELECT FROM refold.archived_ids(ARRAY[%(id)s::text]) WHERE digest <> 0)",
            {"id": event_id},
        )[0]
    )


class _Row(NamedTuple):
    trace_id: str
    txid: int
    first: int
    last: int
    events: int
    span_id: int
    at: datetime


def _rows(conn: psycopg.Connection, name: str) -> list[_Row]:
    try:
        trace_id = UUID(name)
    except ValueError:
        return []
    rows = conn.execute(
        "SELECT replace(trace_id::text, '-', ''), txid::text::bigint, first_position, position, events, span_id,"
        " recorded_at FROM refold.traces WHERE trace_id = %s ORDER BY txid, position LIMIT %s",
        (trace_id, MOST),
    ).fetchall()
    return [_Row(*row) for row in rows]


def _appended(conn: psycopg.Connection, live: Sequence[_Live], row: _Row) -> Appended:
    ids = conn.execute(
        "SELECT event_id FROM refold.events WHERE txid = %s::text::xid8 AND position BETWEEN %s AND %s"
        " ORDER BY position LIMIT %s",
        (str(row.txid), row.first, row.last, IDS),
    ).fetchall()
    arrivals = _arrivals(conn, live, Key(row.txid, row.first, 0), Key(row.txid, row.last, LAST_ORDINAL), row.at)
    return Appended(row.trace_id, f"{row.span_id % 2**64:016x}", row.at, row.events, [one for (one,) in ids], arrivals)


def _live(conn: psycopg.Connection, *, kept: int | None = None) -> list[_Live]:
    """Return the live builds with their newest cursors, oldest first."""
    found = conn.execute(
        """
        SELECT b.build_id, b.projection, u.projection, c.done::text, c.target::text, c.progress_txid::text::bigint,
               c.progress_position, c.progress_ordinal, c.moved_at, c.number
        FROM refold.builds AS b
        LEFT JOIN refold.builds AS u ON u.build_id = b.upstream_id
        CROSS JOIN LATERAL (
            SELECT * FROM refold.cursors AS c WHERE c.build_id = b.build_id ORDER BY c.number DESC LIMIT %s
        ) AS c
        WHERE b.state = 'live'
        ORDER BY b.upstream_id NULLS FIRST, b.projection, c.number
        """,
        (kept,),
    ).fetchall()
    builds: dict[int, _Live] = {}
    steps: dict[int, list[_Step]] = {}
    for build_id, projection, upstream, *cursor, moved_at, number in found:
        steps.setdefault(build_id, []).append(_Step(Cursor.parse(*cursor), moved_at, number))
        builds[build_id] = _Live(build_id, projection, upstream, steps[build_id])
    return list(builds.values())


def _arrivals(conn: psycopg.Connection, live: Sequence[_Live], first: Key, last: Key, at: datetime) -> list[Arrival]:
    letters = _letters(conn, live, first, last)
    return [_arrival(conn, build, first, last, at, letters.get(build.build_id)) for build in live]


def _arrival(
    conn: psycopg.Connection, build: _Live, first: Key, last: Key, at: datetime, letter: str | None
) -> Arrival:
    name = (build.projection, build.upstream)
    moment = arrived(build.steps, last)
    if moment is None:
        return Arrival(*name, "applying" if build.steps[-1].cursor.applied(first) else "waiting")
    state = "applied" if letter is None else "dead letter"
    if moment.exact:
        return Arrival(*name, state, moment.at, max(0.0, (moment.at - at).total_seconds()))
    return Arrival(*name, state, by=moment.at, typical=_typical(conn, build.build_id, at))


class Moment(NamedTuple):
    """When a cursor passed a key: at this time, or, if it is not exact, not later."""

    at: datetime
    exact: bool


def arrived(steps: Sequence[_Step], key: Key) -> Moment | None:
    """Return when a build applied the row at a key; None if it has not. Pure.

    Args:
        steps: its newest cursors, oldest first.
        key: the row.
    """
    for place, step in enumerate(steps):
        if step.cursor.applied(key):
            return Moment(step.moved_at, place > 0)
    return None


def _letters(conn: psycopg.Connection, live: Sequence[_Live], first: Key, last: Key) -> Mapping[int, str]:
    rows = conn.execute(
        "SELECT build_id, state FROM refold.dead_letters WHERE build_id = ANY (%s) AND state <> 'released'"
        " AND txid = %s::text::xid8 AND position BETWEEN %s AND %s",
        ([build.build_id for build in live], str(first.txid), first.position, last.position),
    ).fetchall()
    return dict(rows)


def _typical(conn: psycopg.Connection, build_id: int, at: datetime) -> float | None:
    """Return the seconds within which half of the events became visible that were applied in the two minutes after."""
    rows = conn.execute(
        "SELECT bucket, sum(events)::bigint FROM refold.latencies WHERE build_id = %s AND stage = 'fresh'"
        " AND minute BETWEEN date_trunc('minute', %s::timestamptz) AND %s GROUP BY bucket",
        (build_id, at, at + timedelta(minutes=1)),
    ).fetchall()
    return quantile(dict(rows), 0.5)


def exemplars(conn: psycopg.Connection) -> dict[str, Exemplar]:
    """Return the latest sampled trace of each metric whose moment is known, for a histogram of latencies.

    It reads NEWEST rows of `refold.traces` and KEPT cursors of each live build. A metric that no sampled event has
    reached within its newest cursors has none.

    Args:
        conn: acts as refold_observer.
    """
    rows = conn.execute(
        "SELECT txid::text::bigint, position, trace_id, recorded_at FROM refold.traces"
        " ORDER BY txid DESC, position DESC LIMIT %s",
        (NEWEST,),
    ).fetchall()
    found: dict[str, Exemplar] = {}
    for build in _live(conn, kept=KEPT) if rows else ():
        for txid, position, trace_id, at in rows:
            moment = arrived(build.steps, Key(txid, position, LAST_ORDINAL))
            if moment is not None and moment.exact:
                seconds = max(0.0, (moment.at - at).total_seconds())
                found[build.projection] = Exemplar(trace_id.hex, seconds, moment.at)
                break
    return found
