"""Counting the events of the log by the hour in which they were recorded, by action and by source.

The log is read behind a cursor of its own, as a projection reads it: each event counts once.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import psycopg

from refold.model.anomaly.delays import BUCKET, SHORTEST_S
from refold.model.sql_text import indent
from refold.model.stream.cursor import LAST_ORDINAL, Key, advance, next_read
from refold.model.stream.page_sql import LOG_STREAM
from refold.model.stream.parameters import read_parameters
from refold.store import series as store
from refold.store.series import Kind

PAGE = 100_000
"""Events that a transaction counts."""
BUSY_S = 10.0
"""Seconds for which one run of the duty reads the log; the next run goes on."""
OLD = timedelta(days=7)
"""Delay from which an event is old: it was ingested later, and is no part of what happens now."""

_SOURCE = """CASE WHEN starts_with(event_id, 'capture:') THEN 'capture:' || split_part(event_id, ':', 2)
             WHEN jsonb_typeof(metadata -> 'source') = 'string' THEN left(metadata ->> 'source', 200)
             ELSE '' END"""
_PAGE = LOG_STREAM.page(["event_id", "action", "ts", "metadata", "recorded_at"])
_COUNT = f"""
WITH {_PAGE.source},
counted AS (
    SELECT date_trunc('hour', recorded_at, 'UTC') AS hour, action::text, {_SOURCE} AS source,
           recorded_at - ts > %(old)s::interval AS old,
           ceil(ln(greatest(extract(epoch FROM recorded_at - ts), {SHORTEST_S}))
                / ln({BUCKET}))::integer AS delay
    FROM page
)
SELECT hour, action, source, old, delay, count(*)
FROM counted
GROUP BY GROUPING SETS ((hour, old, action), (hour, old, source, delay))
"""
_END = f"""
SELECT count(*) OVER (), txid::text::bigint, position FROM (
{indent(_PAGE.rows)}
) AS page ORDER BY page.txid DESC, page.position DESC LIMIT 1
"""


def count(conn: psycopg.Connection) -> None:
    """Count what has come since the last run.

    Args:
        conn: acts as refold_worker, in autocommit mode.
    """
    until = time.monotonic() + BUSY_S
    while _count_page(conn) and time.monotonic() < until:
        pass


def _count_page(conn: psycopg.Connection) -> bool:
    """Count the next events of the log; return whether there are more."""
    with conn.transaction():
        state, log, now = store.watch(conn)
        if state.cursor.done.xmax > log.done.xmax:
            # The log of another cluster, after a restore: its transactions are numbered anew.
            store.move(conn, log, now)
            return False
        read = next_read(state.cursor, log)
        if read is None:
            store.move(conn, state.cursor, now)
            return False
        parameters = read_parameters(read, PAGE)
        rows = conn.execute(_COUNT.encode(), {**parameters, "old": OLD}).fetchall()
        found = conn.execute(_END.encode(), parameters).fetchone()
        events, last = (0, None) if found is None else (found[0], Key(found[1], found[2], LAST_ORDINAL))
        _store(conn, rows, now.astimezone(UTC).date())
        full = events >= PAGE
        store.move(conn, advance(state.cursor, read, last, full), None if full else now)
        return full


def _store(
    conn: psycopg.Connection,
    rows: Sequence[tuple[datetime, str | None, str | None, bool, int | None, int]],
    today: date,
) -> None:
    counts: dict[tuple[Kind, str, datetime], int] = defaultdict(int)
    delays: dict[tuple[Kind, str, datetime], dict[int, int]] = defaultdict(dict)
    for hour, action, source, old, delay, events in rows:
        if action is not None:
            counts["all" if not old else "old", "", hour] += events
            if not old:
                counts["action", action, hour] += events
        elif source is not None and not old:
            counts["source", source, hour] += events
            assert delay is not None
            delays["source", source, hour][delay] = events
    if not counts:
        return
    totals: dict[tuple[Kind, str], int] = defaultdict(int)
    for (kind, name, _), events in counts.items():
        totals[kind, name] += events
    wanted = sorted(totals, key=lambda one: (one[0] not in ("all", "old"), -totals[one]))
    known = store.add(conn, [("all", ""), ("old", ""), *wanted], today, day=today)
    store.count(
        conn,
        {(known[kind, name], hour): events for (kind, name, hour), events in counts.items() if (kind, name) in known},
        {(known[kind, name], hour): of for (kind, name, hour), of in delays.items() if (kind, name) in known},
    )
