"""Many producers and several workers at once: nothing is skipped, nothing counted twice.

Beside the workers a naive reader follows the log by `position > last`, as every outbox does at first. It must
lose events here: otherwise these tests would prove nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.apply.page import apply_next_page, apply_page
from refold.postgres.connect import connect as connect_as
from refold.service.worker.loop import Worker
from refold.store.builds.build import by_id, live, lock
from refold.store.builds.compiled import Compiler
from tests.support.law import PROJECT, deploy_project, random_events, wrong_metrics
from tests.support.processes import worker
from tests.support.producers import Producer
from tests.support.waiting import wait_until

PRODUCERS = 10
TRANSACTIONS = 40
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


@pytest.fixture
def url(database_url: str) -> str:
    """The law's project, live over an empty log of small segments."""
    with psycopg.connect(database_url) as conn:
        conn.execute("UPDATE refold.settings SET segment_size = 300, segments_ahead = 20")
        conn.execute("SELECT refold.ensure_segments()")
    deploy_project(database_url)
    return database_url


@pytest.mark.slow
def test_everything_is_applied_exactly_once(url: str, connect: Callable[..., psycopg.Connection[Any]]) -> None:
    naive = NaiveReader(connect(autocommit=True))
    finished = threading.Event()
    follower = threading.Thread(target=naive.follow, args=(finished,))
    watch = connect(autocommit=True)
    [(prepared,)] = watch.execute("SELECT current_setting('max_prepared_transactions')::integer").fetchall()
    producers = [
        Producer(url, number, TRANSACTIONS, two_phases=number < min(2, prepared)) for number in range(PRODUCERS)
    ]
    long = connect_as(url, "refold_producer")
    with ExitStack() as stack:
        stack.enter_context(long)
        early = Producer.append(long, random_events(5, prefix="long-"))
        for _ in range(WORKERS):
            stack.enter_context(worker(url, PROJECT, drain=False, poll=0.05))
        stack.callback(finished.set)
        for thread in (follower, *producers):
            thread.start()
        acknowledged: set[str] = set().union(*(producer.result() for producer in producers))
        # The long transaction holds up nobody's events but its own.
        query = "SELECT events FROM metrics.everything"
        wait_until(lambda: watch.execute(query).fetchone() == (len(acknowledged),), deadline_s=60)
        wait_until(lambda: watch.execute("SELECT max(position) FROM refold.events").fetchone() == (naive.last,))
        acknowledged |= early | Producer.append(long, random_events(5, seed=1, prefix="longer-"))
        long.commit()
        wait_until(lambda: watch.execute(query).fetchone() == (len(acknowledged),), deadline_s=60)
        finished.set()
        follower.join()
    Worker(url, PROJECT).run(drain=True)
    stored = [event_id for (event_id,) in watch.execute("SELECT event_id FROM refold.events").fetchall()]
    assert sorted(stored) == sorted(acknowledged)
    assert wrong_metrics(url) == {}
    lost = acknowledged - set(naive.seen)
    assert lost >= early, "a reader by position lost nothing, so this test would not notice a wrong cursor either"


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


def test_workers_pass_over_a_build_that_another_has(url: str, connect: Callable[..., psycopg.Connection[Any]]) -> None:
    conn, other = (connect_as(url, "refold_worker", autocommit=True, settings={"lock_timeout": "2s"}) for _ in range(2))
    append(connect(autocommit=True), random_events(10))
    with conn, other:
        build = live(conn, "everything")
        assert build is not None
        compiled = Compiler(PROJECT).of(conn, build)
        with conn.transaction():
            locked = lock(conn, build.build_id)
            assert locked is not None
            apply_page(conn, compiled, locked, 4)
            assert apply_next_page(other, compiled, 4) is None
        applied = apply_next_page(other, compiled, 100)
        assert applied is not None and applied.events == 6
        assert by_id(conn, build.build_id).events_applied == 10
