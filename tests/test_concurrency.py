"""Many producers and several workers at once: nothing is skipped, nothing counted twice.

Beside the workers a naive reader follows the log by `position > last`, as every outbox does at first. It must
lose events here: otherwise these tests would prove nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from random import Random
from typing import Any

import psycopg
import pytest

from law import PROJECT, deploy_project, random_events, wrong_metrics
from processes import worker
from refold import append
from refold.builds.build import by_id, live, lock
from refold.builds.upkeeper import Upkeepers
from refold.database import connect as connect_as
from refold.worker.loop import Worker
from refold.worker.page import apply_page, turn
from waiting import wait_until

PRODUCERS = 8
TRANSACTIONS = 25
WORKERS = 2


class NaiveReader:
    """Follows the log by the greatest position it has seen."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self.conn = conn
        self.last = 0
        self.seen: list[str] = []

    def poll(self) -> int:
        rows = self.conn.execute(
            "SELECT position, event_id FROM refold.events WHERE position > %s ORDER BY position LIMIT 100", (self.last,)
        ).fetchall()
        self.seen += [event_id for _, event_id in rows]
        self.last = rows[-1][0] if rows else self.last
        return len(rows)

    def follow(self, until: threading.Event) -> None:
        while self.poll() or not until.is_set():
            pass


class Producer(threading.Thread):
    """Appends in many small transactions: with pauses, savepoints and rollbacks, some of them in two phases."""

    def __init__(self, url: str, number: int, *, two_phases: bool) -> None:
        super().__init__(name=f"producer {number}")
        self.url = url
        self.number = number
        self.two_phases = two_phases
        self.acknowledged: set[str] = set()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.produce()
        except BaseException as error:
            self.error = error

    def produce(self) -> None:
        random = Random(self.number)
        events = iter(random_events(TRANSACTIONS * 8, self.number, prefix=f"p{self.number}-"))
        with connect_as(self.url, "refold_producer") as conn:
            conn.execute(f"SET refold.doorbell = {'off' if self.two_phases else 'on'}")
            conn.commit()
            for transaction in range(TRANSACTIONS):
                if self.two_phases:
                    conn.tpc_begin(conn.xid(1, f"{self.number}-{transaction}", "refold"))
                kept = self.append(conn, [next(events) for _ in range(random.randint(1, 4))])
                conn.execute("SELECT pg_sleep(%s)", (random.choice([0, 0.001, 0.01]),))
                conn.execute("SELECT 1")
                undone = random.random() < 0.3
                with conn.transaction(force_rollback=undone):
                    more = self.append(conn, [next(events) for _ in range(random.randint(1, 4))])
                if not undone:
                    kept |= more
                if self.two_phases:
                    conn.tpc_prepare()
                if random.random() < 0.2:
                    conn.tpc_rollback() if self.two_phases else conn.rollback()
                else:
                    conn.tpc_commit() if self.two_phases else conn.commit()
                    self.acknowledged |= kept

    @staticmethod
    def append(conn: psycopg.Connection[Any], events: list[Any]) -> set[str]:
        return {str(receipt.event_id) for receipt in append(conn, events)}


@pytest.fixture
def url(database_url: str) -> str:
    """The law's project, live over an empty log of small segments."""
    with psycopg.connect(database_url) as conn:
        conn.execute("UPDATE refold.settings SET segment_size = 300, segments_ahead = 20")
        conn.execute("SELECT refold.ensure_segments()")
    deploy_project(database_url)
    return database_url


def test_everything_is_applied_exactly_once(url: str, connect: Callable[..., psycopg.Connection[Any]]) -> None:
    naive = NaiveReader(connect(autocommit=True))
    finished = threading.Event()
    follower = threading.Thread(target=naive.follow, args=(finished,))
    prepared = int(connect().execute("SHOW max_prepared_transactions").fetchone()[0])  # type: ignore[index]
    producers = [Producer(url, number, two_phases=number < min(2, prepared)) for number in range(PRODUCERS)]
    long = connect_as(url, "refold_producer")
    with ExitStack() as stack:
        stack.enter_context(long)
        late = Producer.append(long, random_events(5, prefix="long-"))
        for _ in range(WORKERS):
            stack.enter_context(worker(url, PROJECT, drain=False, poll=0.05))
        stack.callback(finished.set)
        for thread in (follower, *producers):
            thread.start()
        for producer in producers:
            producer.join()
            assert producer.error is None, producer.error
        acknowledged: set[str] = set().union(*(producer.acknowledged for producer in producers))
        # The long transaction holds up nobody's events but its own.
        watch = connect(autocommit=True)
        query = "SELECT events FROM metrics.everything"
        wait_until(lambda: watch.execute(query).fetchone() == (len(acknowledged),), deadline_s=60)
        late |= Producer.append(long, random_events(5, seed=1, prefix="longer-"))
        long.commit()
        acknowledged |= late
        wait_until(lambda: watch.execute(query).fetchone() == (len(acknowledged),), deadline_s=60)
        finished.set()
        follower.join()
    Worker(url, PROJECT).run(drain=True)
    stored = [event_id for (event_id,) in watch.execute("SELECT event_id FROM refold.events").fetchall()]
    assert sorted(stored) == sorted(acknowledged)
    assert wrong_metrics(url) == {}
    lost = acknowledged - set(naive.seen)
    assert lost, "a reader by position lost nothing, so this test would not notice a wrong cursor either"
    assert lost & late


def test_a_lower_position_that_commits_later_is_not_skipped(
    url: str, connect: Callable[..., psycopg.Connection[Any]]
) -> None:
    """FAULTS 1, deterministic: two connections, no luck."""
    naive = NaiveReader(connect(autocommit=True))
    first, second = connect(), connect()
    append(first, random_events(1, prefix="first-"))
    append(second, random_events(1, prefix="second-"))
    second.commit()
    naive.poll()
    Worker(url, PROJECT).run(drain=True)
    watch = connect(autocommit=True)
    assert watch.execute("SELECT events, last_id FROM metrics.everything").fetchall() == [(1, "second-0")]
    first.commit()
    naive.poll()
    Worker(url, PROJECT).run(drain=True)
    assert watch.execute("SELECT events FROM metrics.everything").fetchall() == [(2,)]
    assert wrong_metrics(url) == {}
    assert naive.seen == ["second-0"]


def test_gaps_are_not_waited_for(url: str, connect: Callable[..., psycopg.Connection[Any]]) -> None:
    """FAULTS 3: positions that rolled back are gone for ever."""
    conn = connect()
    for number in range(300):
        append(conn, random_events(1, prefix=f"gap{number}-"))
        conn.rollback()
    append(conn, random_events(3))
    conn.commit()
    Worker(url, PROJECT).run(drain=True)
    assert wrong_metrics(url) == {}
    assert conn.execute("SELECT events FROM metrics.everything").fetchall() == [(3,)]


def test_workers_pass_over_a_build_that_another_has(url: str, connect: Callable[..., psycopg.Connection[Any]]) -> None:
    conn, other = (connect_as(url, "refold_worker", autocommit=True, settings={"lock_timeout": "2s"}) for _ in range(2))
    append(connect(autocommit=True), random_events(10))
    with conn, other:
        build = live(conn, "everything")
        assert build is not None
        keeper = Upkeepers(PROJECT).of(conn, build)
        with conn.transaction():
            locked = lock(conn, build.build_id)
            assert locked is not None
            apply_page(conn, keeper, locked, 4)
            assert turn(other, keeper, 4) is None
        applied = turn(other, keeper, 100)
        assert applied is not None and applied.events == 6
        assert by_id(conn, build.build_id).events_applied == 10
