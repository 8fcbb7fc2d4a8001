"""A wake-up that is lost is noticed, with the event that should have rung (fault 22); one that rings late is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from refold import append
from refold.service.duties.missed_notifications import QUIET, over, run
from refold.service.worker.listener import Listener
from refold.store.builds.compiled import Compiler
from refold.store.incidents import Incident, find
from tests.support.law import random_events, worker_connection

Connection = psycopg.Connection[Any]
OFF = "SET refold.notify = off"


class Sleeper:
    """A worker's listener, with a poll so short that each sleep returns at once unless something rings."""

    def __init__(self, conn: Connection, watch: Connection) -> None:
        self.conn = conn
        self.bell = Listener(conn, poll=0.05)
        assert self.bell.self_test(watch)

    def sleep(self) -> None:
        self.bell.sleep(lambda: False, lambda: False)

    def incidents(self) -> list[Incident]:
        return find(self.conn, "i.kind = 'missed_notification'")


@pytest.fixture
def sleeper(
    database_url: str, connect: Callable[..., Connection], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Sleeper]:
    monkeypatch.setattr("refold.service.worker.listener.GRACE", 0.0)
    with worker_connection(database_url) as conn:
        yield Sleeper(conn, connect(autocommit=True))


@pytest.fixture
def producer(connect: Callable[..., Connection]) -> Connection:
    return connect(autocommit=True)


def test_an_event_that_does_not_ring(sleeper: Sleeper, producer: Connection) -> None:
    sleeper.sleep()
    producer.execute(OFF)
    append(producer, random_events(2, prefix="silent-"))
    sleeper.sleep()
    assert sleeper.incidents() == []
    sleeper.sleep()
    [incident] = sleeper.incidents()
    recorded = producer.execute("SELECT recorded_at, txid::text::bigint FROM refold.events LIMIT 1").fetchone()
    assert recorded == (incident.started_at, incident.evidence["txid"])
    assert incident.evidence["event"] == "silent-0"
    assert incident.evidence["asleep_txid"] < incident.evidence["txid"]

    producer.execute("SET refold.notify = on")
    sleeper.bell.mark_awake()
    sleeper.sleep()
    append(producer, random_events(1, prefix="rings-"))
    sleeper.sleep()
    [incident] = sleeper.incidents()
    assert incident.outcome is not None and incident.outcome["because"] == "a notification arrived"


def test_the_bell_rings(sleeper: Sleeper, producer: Connection) -> None:
    for number in range(3):
        sleeper.sleep()
        append(producer, random_events(1, prefix=f"{number}-"))
        sleeper.sleep()
        if number == 1:
            # Whoever reads puts the flag down; a build that fails may leave it up.
            sleeper.bell.mark_awake()
        sleeper.sleep()
        sleeper.sleep()
    assert sleeper.incidents() == []


def test_a_ring_that_comes_after_the_event_was_seen(
    sleeper: Sleeper, producer: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refold.service.worker.listener.GRACE", 0.2)
    sleeper.sleep()
    producer.execute(OFF)
    append(producer, random_events(1))
    sleeper.sleep()
    producer.execute("SELECT pg_notify('refold', '')")
    sleeper.sleep()
    assert sleeper.incidents() == []


def test_a_writer_from_before_the_flag_need_not_ring(sleeper: Sleeper, connect: Callable[..., Connection]) -> None:
    """It looked for sleepers before there was one, and stayed open for longer than anybody waits."""
    early = connect()
    append(early, random_events(1))
    sleeper.sleep()
    sleeper.sleep()
    early.commit()
    for _ in range(3):
        sleeper.sleep()
    assert sleeper.incidents() == []


def test_a_role_that_turned_it_off_is_not_held_against_anybody(sleeper: Sleeper, producer: Connection) -> None:
    producer.execute(
        "ALTER ROLE refold_producer IN DATABASE {} SET refold.notify = off".format(
            '"' + producer.info.dbname + '"'
        ).encode()
    )
    producer.execute(OFF)
    sleeper.sleep()
    append(producer, random_events(1))
    for _ in range(3):
        sleeper.sleep()
    assert sleeper.incidents() == []


def test_one_that_is_not_seen_again_is_over(sleeper: Sleeper, producer: Connection) -> None:
    producer.execute(OFF)
    sleeper.sleep()
    append(producer, random_events(1))
    sleeper.sleep()
    sleeper.sleep()
    run(sleeper.conn, Compiler(None))
    [incident] = sleeper.incidents()
    assert incident.resolved_at is None
    now = datetime.now(UTC)
    long_ago = replace(incident, evidence={"seen_at": (now - QUIET - timedelta(seconds=1)).isoformat()})
    assert over([incident, long_ago], now) == [long_ago]
    sleeper.conn.execute(
        "UPDATE refold.incidents SET evidence = evidence || jsonb_build_object('seen_at', now() - interval '1 day')"
    )
    run(sleeper.conn, Compiler(None))
    [incident] = sleeper.incidents()
    assert incident.resolved_by == "missed notifications"
