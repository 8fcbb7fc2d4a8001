"""A producer that connected when tables were empty keeps its plans, and reads none of them whole once they are full.

A plan that was made for an empty table may read all of it, and a session keeps it until the table is analysed. So each
call is made often enough for a generic plan, the tables are filled behind its back, and the rows that it reads count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from refold import append
from tests.support.contracts import PURCHASE, register
from tests.support.making import MONDAY_MS, events

Connection = psycopg.Connection[Any]
FILLED = 8_192
"""Rows of each table: many more than a call may read."""
MOST = 1_024
BUCKETS = 65_536

FILL = (
    """
    INSERT INTO refold.cold_ids (bucket, ids, digests, checksum)
    SELECT n, h.ids, h.digests, refold.cold_checksum(h.ids, h.digests)
    FROM generate_series(%(first)s::integer, %(last)s::integer) AS n
    CROSS JOIN LATERAL (SELECT ARRAY[n::bigint] AS ids, ARRAY[7] AS digests) AS h
    """,
    """
    INSERT INTO refold.erased_events (erasure_id, position, mac, mention, renamed)
    SELECT e.erasure_id, n, sha256(n::text::bytea), false, n %% 2 = 0
    FROM refold.erasures AS e, generate_series(%(first)s::integer, %(last)s::integer) AS n
    """,
    """
    INSERT INTO refold.lost_events (event_id, acceptance)
    SELECT 'lost' || n, a.acceptance
    FROM refold.acceptances AS a, generate_series(%(first)s::integer, %(last)s::integer) AS n
    """,
    """
    INSERT INTO refold.event_ids (event_id, digest, position)
    SELECT 'known' || n, 7, n FROM generate_series(%(first)s::integer, %(last)s::integer) AS n
    """,
)


def _fill(admin: Connection, first: int, last: int) -> None:
    for statement in FILL:
        admin.execute(statement.encode(), {"first": first, "last": last})


def _read(conn: Connection) -> dict[str, int]:
    """Rows of each table that this transaction has read."""
    return dict(
        conn.execute(
            "SELECT relname, seq_tup_read + coalesce(idx_tup_fetch, 0)"
            " FROM pg_stat_xact_all_tables WHERE schemaname = 'refold'"
        ).fetchall()
    )


def _insert(conn: Connection, name: str, count: int) -> None:
    conn.execute(
        "INSERT INTO refold.events (event_id, action, ts) SELECT %s || n, 'view', now()"
        " FROM generate_series(1, %s::integer) AS n",
        (name, count),
    )


def _call(conn: Connection, offered: list[dict[str, Any]]) -> None:
    append(conn, offered)


def _contracted(name: str, count: int) -> list[dict[str, Any]]:
    return [{"id": f"{name}{n}", "action": "purchase", "ts": MONDAY_MS, "metadata": {"n": n}} for n in range(count)]


CALLS: dict[str, Callable[[Connection, str], None]] = {
    "one event": lambda conn, name: _call(conn, events(1, name)),
    "one that is known": lambda conn, name: _call(conn, events(1, "first")),
    "many events": lambda conn, name: _call(conn, events(100, name)),
    "many with some that are known": lambda conn, name: _call(conn, [*events(100, name), *events(9, "first")]),
    "one INSERT": lambda conn, name: _insert(conn, name, 1),
    "an INSERT of many": lambda conn, name: _insert(conn, name, 100),
    "one that breaks a contract": lambda conn, name: _call(conn, _contracted(name, 1)),
    "many that break one": lambda conn, name: _call(conn, _contracted(name, 100)),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_session_from_before_tables_grew_looks_up_and_does_not_search(
    admin: Connection, producers: Callable[..., Connection], call: str
) -> None:
    for table in ("cold_ids", "erased_events", "lost_events", "event_ids"):
        admin.execute(f"ALTER TABLE refold.{table} SET (autovacuum_enabled = off)".encode())
    admin.execute("UPDATE refold.settings SET cold_buckets = %s", (BUCKETS,))
    admin.execute(
        "INSERT INTO refold.erasures (subject, mode, fields, macs, keeps, reason, step, finished_at)"
        " VALUES (sha256('u'), 'delete', '{}', '{}', '{}', 'asked', 'done', now())"
    )
    admin.execute(
        "INSERT INTO refold.acceptances (segment, reason, missing, changed, unknown, details)"
        " VALUES ('refold.events', 'tried', 0, 0, 0, '{}')"
    )
    # Two rows in each, so that no lookup is left out while the plans are made.
    _fill(admin, 1, 2)
    admin.execute("ANALYZE")
    register(admin, PURCHASE)
    producer = producers(autocommit=True)
    append(producer, events(9, "first"))
    for round_ in range(12):
        CALLS[call](producer, f"warm{round_}-")
    _fill(admin, 3, FILLED)
    with producer.transaction():
        before = _read(producer)
        CALLS[call](producer, "measured-")
        after = _read(producer)
    read = {table: rows - before.get(table, 0) for table, rows in after.items()}
    assert {table: rows for table, rows in read.items() if rows > MOST} == {}
