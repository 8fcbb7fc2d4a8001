"""The number of events in a long log is an estimate, also where transactions that failed have drawn positions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import append
from refold.postgres.connect import connect as connect_as
from refold.store.log.seal import seal
from tests.engine.archive.conftest import SLICE, segments_of, shop_of
from tests.support.making import events, small_segments
from tests.support.purging import let_go
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


def test_what_was_purged_was_recorded_all_the_same(database_url: str, admin: Connection, tmp_path: Path) -> None:
    """A count of what is left in the log would pass for the number of events that came."""
    segments_of(admin, SLICE, 2 * SLICE, 3 * SLICE)
    with connect_as(database_url, "refold_worker", autocommit=True) as worker:
        shop = shop_of(database_url, admin, worker, str(tmp_path / "archive"))
        shop.fill(1, each=30)
        append(admin, events(3, "last"))
        shop.seal(1)
        before = admin.execute("SELECT * FROM refold.recorded_since('-infinity')").fetchone()
        assert before == (37, True)
        shop.claim()
        shop.run()
        let_go(admin, shop.manifest()[0])
    row = admin.execute("SELECT * FROM refold.recorded_since('-infinity')").fetchone()
    assert row is not None and row[0] >= 34 and not row[1]
