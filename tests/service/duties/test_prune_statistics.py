"""Duplicates are counted without anybody waiting, summed up by the minute, and forgotten in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

from refold import append
from refold.service.duties.prune_statistics import run
from refold.store.builds.compiled import Compiler
from refold.store.log.append import BULK
from tests.support.making import events

Connection = psycopg.Connection[Any]
NOBODYS = Compiler(None)


def rows(admin: Connection) -> list[tuple[Any, ...]]:
    return admin.execute("SELECT events, folded FROM refold.duplicates ORDER BY at, events").fetchall()


def test_every_way_in_counts_them(producers: Callable[..., Connection], admin: Connection) -> None:
    producer = producers()
    append(producer, events(BULK))
    producer.commit()
    assert rows(admin) == []
    append(producer, events(BULK))
    append(producer, events(3))
    producer.execute(
        """SELECT refold.append('[{"id": "e1", "action": "x", "ts": "2026-01-01T00:00:00Z"},
                                  {"id": "new", "action": "x", "ts": "2026-01-01T00:00:00Z"},
                                  {"id": "new", "action": "x", "ts": "2026-01-01T00:00:00Z"}]')"""
    )
    producer.commit()
    # The last call: one conflict, one accepted, one its duplicate.
    assert sorted(number for number, _ in rows(admin)) == [1, 3, BULK]
    append(producer, events(3))
    producer.rollback()
    assert len(rows(admin)) == 3


def test_two_producers_do_not_wait_for_each_other(producers: Callable[..., Connection]) -> None:
    one, other = producers(), producers()
    append(one, events(3))
    one.commit()
    other.execute("SET lock_timeout = '1s'")
    append(one, events(3))
    append(other, events(3))
    other.commit()
    one.commit()


def test_summed_up_and_forgotten(worker: Connection, admin: Connection, limit: Callable[..., None]) -> None:
    admin.execute(
        """
        INSERT INTO refold.duplicates (at, events) VALUES
            ('2026-01-01 10:00:05Z', 1), ('2026-01-01 10:00:59Z', 2), ('2026-01-01 10:01:00Z', 4),
            (clock_timestamp() + interval '1 minute', 8)
        """
    )
    admin.execute("INSERT INTO refold.latencies VALUES ('2026-01-01Z', 1, 'fresh', 1, 1), (now(), 1, 'fresh', 1, 1)")
    limit(latency_days=100_000)
    for _ in range(2):
        run(worker, NOBODYS)
        assert rows(admin) == [(3, True), (4, True), (8, False)]
    limit(latency_days=1)
    run(worker, NOBODYS)
    assert rows(admin) == [(8, False)]
    assert admin.execute("SELECT count(*) FROM refold.latencies").fetchone() == (1,)


def test_of_large_batches_those_stay_that_no_larger_one_followed(worker: Connection, admin: Connection) -> None:
    admin.execute(
        """
        INSERT INTO refold.batches (at, events, stored)
        SELECT clock_timestamp() - age * interval '1 day', events, stored
        FROM (VALUES (8, 900, true), (6, 500, true), (5, 300, true), (4, 400, true), (3, 50, false), (2, 60, false),
                     (1, 100, true), (0.5, 100, true), (-1, 999, true)) AS b (age, events, stored)
        """
    )
    for _ in range(2):
        run(worker, NOBODYS)
        kept = admin.execute("SELECT events, stored FROM refold.batches ORDER BY at").fetchall()
        # Of those that found too little room the newest stays: people are told. What lies in the future is nobody's.
        assert kept == [(500, True), (400, True), (60, False), (100, True)]
