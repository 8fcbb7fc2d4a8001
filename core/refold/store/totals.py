"""Running totals: numbers that never fall, whatever is deleted, and that take a few pages to read.

A duty adds what has come since its last run. Events it counts behind a cursor, as a build reads them. Records it counts
up to a number that it noted before, once every transaction of that time is over: a record that became visible behind
the mark would never be counted.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import takewhile

import psycopg

from refold.model.quantiles import Histogram
from refold.model.stream.cursor import LAST_ORDINAL, Cursor, Key, Snapshot, advance, next_read
from refold.model.stream.page_sql import LOG_STREAM
from refold.model.stream.parameters import read_parameters
from refold.postgres.rows import one_row
from refold.postgres.session import plan_by_index

RECORDS = {
    "rejected": ("refold.rejected", "rejected_id", "''::text", "answer"),
    "healed": ("refold.repairs", "repair_id", "projection", "kind"),
    "incidents": ("refold.incidents", "incident_id", "''::text", "kind"),
}
"""For each kind of record its table, the column with its number, its projection and its kind."""
MOST_RECORDS = 100_000
"""Most numbers of records that one run counts, of each kind."""
ARCHIVE = {
    "archived": (
        ("archived_segments", "archived_events", "archived_bytes"),
        """
        SELECT a.state IN ('verified', 'purged'), a.upper_position, 1, a.events, a.bytes FROM refold.archives AS a
        WHERE a.lower_position >= %s AND a.state IN ('begun', 'written', 'verified', 'purged')
        ORDER BY a.lower_position LIMIT %s
        """,
    ),
    "purged": (
        ("purged_segments", "purged_events"),
        """
        SELECT true, a.upper_position, 1, a.events FROM refold.archives AS a
        WHERE a.lower_position >= %s AND a.state = 'purged' ORDER BY a.lower_position LIMIT %s
        """,
    ),
    "cold": (
        ("cold_ids",),
        """
        SELECT r.copied_at IS NOT NULL, r.upper_position, r.ids FROM refold.cold_ranges AS r
        WHERE r.lower_position >= %s ORDER BY r.lower_position LIMIT %s
        """,
    ),
}
"""For each mark the kinds of totals, and the query for what is not counted: whether it counts, its end, the numbers."""
MOST_SEGMENTS = 1_000
"""Most segments that one run counts."""
EVENTS = 20_000
"""Most events that one statement counts."""
COUNTING_S = 5.0
"""Seconds for which one run counts events; the next run continues."""
TOGETHER = 0
"""In place of a build's id: all builds together. It has no successor, so that its counts never fall."""

_PAGE = LOG_STREAM.page([])
_COUNT = f"WITH {_PAGE.source}\n{_PAGE.answer}"


def count_events(conn: psycopg.Connection, *, onward: bool = False) -> None:
    """Count the events that have come since the last run.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        onward: whether the mark goes on even if there is none. Otherwise a deployment at rest writes nothing.
    """
    stop = time.monotonic() + COUNTING_S
    while _count_page(conn, onward=onward) and time.monotonic() < stop:
        pass


def _count_page(conn: psycopg.Connection, *, onward: bool) -> bool:
    """Count a page of events; return whether more may follow."""
    with conn.transaction():
        plan_by_index(conn)
        counted, *at = one_row(
            conn,
            "SELECT events, done::text, target::text, progress_txid::text::bigint, progress_position, %s::integer"
            " FROM refold.counted_events FOR UPDATE",
            (LAST_ORDINAL,),
        )
        # As a page does: the snapshot of a second statement, under the lock.
        seen, own = one_row(conn, "SELECT pg_current_snapshot()::text, pg_current_xact_id()::text")
        now = Cursor(Snapshot.parse(seen).capped(int(own)))
        if at[0] is None:
            (events,) = one_row(
                conn,
                "SELECT l.events + (SELECT coalesce(sum(a.events), 0)::bigint FROM refold.archives AS a"
                " WHERE a.state = 'purged') FROM refold.log_size() AS l",
            )
            _move(conn, max(counted, events), now)
            return False
        cursor = Cursor.parse(*at)
        read = next_read(cursor, now)
        if read is None:
            return False
        events, txid, position, _ = one_row(conn, _COUNT.encode(), read_parameters(read, EVENTS))
        full = bool(events >= EVENTS)
        if events or onward or cursor.target is not None:
            last = Key(txid, position, LAST_ORDINAL) if events else None
            _move(conn, counted + events, advance(cursor, read, last, full))
        return full


def _move(conn: psycopg.Connection, events: int, cursor: Cursor) -> None:
    progress = cursor.progress
    conn.execute(
        "UPDATE refold.counted_events SET events = %s, done = %s::pg_snapshot, target = %s::pg_snapshot,"
        " progress_txid = %s::text::xid8, progress_position = %s",
        (
            events,
            str(cursor.done),
            None if cursor.target is None else str(cursor.target),
            None if progress is None else str(progress.txid),
            None if progress is None else progress.position,
        ),
    )


def forget_cursor(conn: psycopg.Connection) -> None:
    """Forget up to where events are counted: after a restore the ids of transactions are those of another cluster."""
    conn.execute(
        "UPDATE refold.counted_events SET done = NULL, target = NULL, progress_txid = NULL, progress_position = NULL"
    )
    conn.execute("UPDATE refold.total_marks SET next = upto, passed = NULL WHERE what <> 'latencies'")


def count_records(conn: psycopg.Connection) -> None:
    """Count the records up to the number that an earlier run noted, if every transaction of that time is over.

    Args:
        conn: acts as refold_worker, in autocommit mode: its id must be younger than the look at the numbers.
    """
    for what, (table, number, projection, kind) in RECORDS.items():
        (newest,) = one_row(conn, f"SELECT coalesce(max({number}), 0)::bigint FROM {table}".encode())
        with conn.transaction():
            plan_by_index(conn)
            upto, following, over = _mark(conn, what)
            if not over:
                continue
            until = min(following, upto + MOST_RECORDS)
            if until > upto:
                conn.execute(
                    f"""
                    INSERT INTO refold.totals AS t (what, projection, kind, number)
                    SELECT %(what)s, {projection}, {kind}, count(*) FROM {table}
                    WHERE {number} > %(upto)s AND {number} <= %(until)s GROUP BY 2, 3 ORDER BY 2, 3
                    ON CONFLICT (what, projection, kind) DO UPDATE SET number = t.number + excluded.number
                    """.encode(),
                    {"what": what, "upto": upto, "until": until},
                )
            if until < following or newest > following:
                conn.execute(
                    "UPDATE refold.total_marks SET upto = %(until)s, next = greatest(next, %(newest)s),"
                    " passed = pg_current_xact_id() WHERE what = %(what)s",
                    {"what": what, "until": until, "newest": newest},
                )
            elif until > upto:
                conn.execute("UPDATE refold.total_marks SET upto = %s WHERE what = %s", (until, what))


def count_archive(conn: psycopg.Connection) -> None:
    """Count the segments that were archived and purged since the last run, and the ids in the cold ledger.

    They are counted in the order of their positions, up to the first that is not so far yet. So a segment counts once,
    whatever is written or lost of its file later.

    Args:
        conn: acts as refold_worker, in autocommit mode.
    """
    for what, (kinds, query) in ARCHIVE.items():
        with conn.transaction():
            plan_by_index(conn)
            upto, *_ = _mark(conn, what)
            rows = conn.execute(query.encode(), (upto, MOST_SEGMENTS)).fetchall()
            done = list(takewhile(lambda row: row[0], rows))
            if not done:
                continue
            for at, kind in enumerate(kinds, 2):
                conn.execute(
                    "INSERT INTO refold.totals AS t (what, projection, kind, number) VALUES ('archive', '', %s, %s)"
                    " ON CONFLICT (what, projection, kind) DO UPDATE SET number = t.number + excluded.number",
                    (kind, sum(row[at] for row in done)),
                )
            conn.execute(
                "UPDATE refold.total_marks SET upto = %(at)s, next = %(at)s WHERE what = %(what)s",
                {"at": done[-1][1], "what": what},
            )


def _mark(conn: psycopg.Connection, what: str) -> tuple[int, int, bool]:
    """Lock a mark; return it, up to which number to count, and whether nobody can write there any more."""
    conn.execute("INSERT INTO refold.total_marks (what, upto, next) VALUES (%s, 0, 0) ON CONFLICT DO NOTHING", (what,))
    upto, following, over = one_row(
        conn,
        "SELECT upto, next, coalesce(passed <= pg_snapshot_xmin(pg_current_snapshot()), true)"
        " FROM refold.total_marks WHERE what = %s FOR UPDATE",
        (what,),
    )
    return int(upto), int(following), bool(over)


def add_latencies(conn: psycopg.Connection) -> None:
    """Add the latencies of the minutes that are over, before they are deleted.

    Args:
        conn: acts as refold_worker; the transaction that deletes minutes afterwards.
    """
    # The number of a minute since 1970. The last whole minute is left for the next run: a worker may be late.
    (now,) = one_row(conn, "SELECT floor(extract(epoch FROM clock_timestamp()) / 60)::bigint - 1")
    conn.execute(
        """
        INSERT INTO refold.total_marks (what, upto, next)
        SELECT 'latencies', f.first, f.first
        FROM (SELECT coalesce(extract(epoch FROM min(minute))::bigint / 60, 0) AS first FROM refold.latencies) AS f
        WHERE NOT EXISTS (SELECT FROM refold.total_marks WHERE what = 'latencies')
        ON CONFLICT DO NOTHING
        """
    )
    (upto,) = one_row(conn, "SELECT upto FROM refold.total_marks WHERE what = 'latencies' FOR UPDATE")
    if upto == now:
        return
    if upto > now:
        # After a clock that was ahead, go on from now. Minutes that were counted then count twice, and nothing falls.
        conn.execute("UPDATE refold.total_marks SET upto = %s, next = %s WHERE what = 'latencies'", (now, now))
        return
    found = conn.execute(
        """
        SELECT coalesce(l.build_id, %s), l.stage, l.bucket, sum(l.events)::bigint FROM refold.latencies AS l
        WHERE l.minute >= to_timestamp(%s * 60) AND l.minute < to_timestamp(%s * 60)
        GROUP BY GROUPING SETS ((l.build_id, l.stage, l.bucket), (l.stage, l.bucket))
        -- A build that is forgotten has no totals.
        HAVING l.build_id IS NULL OR EXISTS (SELECT FROM refold.builds AS b WHERE b.build_id = l.build_id)
        """,
        (TOGETHER, upto, now),
    ).fetchall()
    _add_histograms(conn, histograms(found))
    conn.execute("UPDATE refold.total_marks SET upto = %s, next = %s WHERE what = 'latencies'", (now, now))


def _add_histograms(conn: psycopg.Connection, more: Mapping[tuple[int, str], Histogram]) -> None:
    known = latency_totals(conn, [build_id for build_id, _ in more])
    rows = []
    for key in sorted(more):
        total = known.get(key, Histogram()) + more[key]
        rows.append((*key, list(total.counts), total.seconds))
    with conn.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO refold.latency_totals (build_id, stage, counts, seconds) VALUES (%s, %s, %s, %s)
            ON CONFLICT (build_id, stage) DO UPDATE SET counts = excluded.counts, seconds = excluded.seconds
            """,
            rows,
        )


def latency_totals(conn: psycopg.Connection, builds: Sequence[int]) -> dict[tuple[int, str], Histogram]:
    """Return the latencies of all minutes that are counted, by build and stage.

    Args:
        conn: acts as a worker or an observer.
        builds: ids of builds, or `TOGETHER`.
    """
    rows = conn.execute(
        "SELECT build_id, stage, counts, seconds FROM refold.latency_totals WHERE build_id = ANY (%s)", (list(builds),)
    ).fetchall()
    return {(build_id, stage): Histogram(tuple(counts), seconds) for build_id, stage, counts, seconds in rows}


def histograms(rows: Sequence[tuple[int, str, int, int]]) -> dict[tuple[int, str], Histogram]:
    """Add up rows of build, stage, bucket and events. Pure."""
    buckets: defaultdict[tuple[int, str], dict[int, int]] = defaultdict(dict)
    for build_id, stage, bucket, events in rows:
        buckets[build_id, stage][bucket] = events
    return {key: Histogram.of(counts) for key, counts in buckets.items()}
