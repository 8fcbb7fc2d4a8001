"""The number of events in a long log is an estimate, also where transactions that failed have drawn positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from refold.postgres.connect import connect as connect_as
from refold.store.log.seal import seal
from tests.support.making import small_segments
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]

INSERT = """
INSERT INTO refold.events (event_id, action, ts)
SELECT %s || n, 'x', now() FROM generate_series(1, %s::integer) AS n
"""


def size(conn: Connection) -> tuple[int, bool]:
    row = conn.execute("SELECT events, exact FROM refold.log_size()").fetchone()
    assert row is not None
    return row[0], row[1]


def flush(conn: Connection) -> None:
    """Let the session tell the server's statistics what it has done."""
    conn.execute("SELECT pg_stat_force_next_flush()")
    conn.commit()


@pytest.mark.parametrize("segment", [50_000, 4_000], ids=["one segment", "many"])
@pytest.mark.parametrize("sealed", [False, True], ids=["unsealed", "sealed before"])
def test_aborted_inserts_are_no_events(
    admin: Connection, connect: Callable[..., Connection], database_url: str, segment: int, sealed: bool
) -> None:
    small_segments(admin, segment)
    producer = connect()

    def insert(prefix: str, number: int) -> None:
        admin.execute("SELECT refold.ensure_segments(%s)", (number,))
        producer.execute(INSERT, (prefix, number))

    insert("a", 20_000)
    flush(producer)
    if sealed:
        with connect_as(database_url, "refold_worker", autocommit=True) as worker:
            wait_until(lambda: seal(worker) or None, 60)
    insert("b", 9_000)
    producer.rollback()
    flush(producer)
    insert("c", 2_000)
    flush(producer)
    events, exact = size(admin)
    assert abs(events - 22_000) <= 2 and not exact
    # What is taken out of the tables, or measured again, changes little.
    for statement in ("VACUUM refold.events", "ANALYZE refold.events"):
        admin.execute(statement.encode())
        assert size(admin)[0] == pytest.approx(22_000, rel=0.05)


def test_without_statistics_each_position_counts(admin: Connection, connect: Callable[..., Connection]) -> None:
    producer = connect()
    producer.execute(INSERT, ("a", 20_000))
    producer.rollback()
    producer.execute(INSERT, ("b", 2_000))
    flush(producer)
    assert size(admin) == (2_000, False)
    admin.execute("SELECT pg_stat_reset()")
    assert size(admin) == (22_000, False)
