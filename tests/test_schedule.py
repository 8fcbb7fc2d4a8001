"""Duties are done by one worker at a time, not too often, and never at the worker's cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from law import worker_connection
from live import SHOP, make_live
from making import events
from refold import append
from refold.builds.upkeeper import Upkeepers
from refold.worker.loop import Worker
from refold.worker.schedule import Duty, Schedule

Connection = psycopg.Connection[Any]
NOBODYS = Upkeepers(None)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Counted:
    """A duty that counts how often it ran, and can be made to do something."""

    def __init__(self, name: str = "count", every: float = 10.0, patience: float = 30.0) -> None:
        self.runs = 0
        self.what: Callable[[Connection], object] = lambda conn: None
        self.duty = Duty(name, every, self._run, patience)

    def _run(self, conn: Connection, upkeepers: Upkeepers) -> None:
        self.runs += 1
        self.what(conn)


@pytest.fixture
def workers(database_url: str) -> Iterator[Callable[[], Connection]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(worker_connection(database_url))


def last_run(admin: Connection, seconds_ago: float) -> None:
    """As if the duties had been started so long ago."""
    admin.execute("UPDATE refold.duties SET started_at = clock_timestamp() - make_interval(secs => %s)", (seconds_ago,))
    admin.commit()


def test_a_duty_runs_when_it_is_due(workers: Callable[[], Connection], conn: Connection) -> None:
    clock, counted, worker = Clock(), Counted(), workers()
    schedule = Schedule([counted.duty], clock)
    for now, runs, wait in ((0.0, 1, 10.0), (9.0, 1, 1.0), (10.0, 2, 10.0)):
        clock.now = now
        schedule.turn(worker, NOBODYS)
        assert (counted.runs, schedule.wait()) == (runs, wait)
        last_run(conn, 11)
    assert Schedule([], clock).wait() == float("inf")


def test_a_worker_that_is_a_moment_early_does_not_wait_another_whole_interval(
    workers: Callable[[], Connection], conn: Connection
) -> None:
    """The row in the database is always a little younger than the worker's clock."""
    clock, counted, worker = Clock(), Counted(), workers()
    schedule = Schedule([counted.duty], clock)
    for now, seconds_ago, runs in ((0.0, 9.9, 1), (10.0, 5.0, 2), (20.0, 5.0, 2)):
        clock.now = now
        schedule.turn(worker, NOBODYS)
        assert counted.runs == runs
        last_run(conn, seconds_ago)


def test_at_most_one_a_turn_and_the_one_that_waits_longest_first(workers: Callable[[], Connection]) -> None:
    clock, often, seldom, worker = Clock(), Counted("often", 1.0), Counted("seldom", 5.0), workers()
    schedule = Schedule([often.duty, seldom.duty], clock)
    for _ in range(2):
        schedule.turn(worker, NOBODYS)
    assert (often.runs, seldom.runs) == (1, 1)
    schedule.turn(worker, NOBODYS)
    assert (often.runs, seldom.runs) == (1, 1)


def test_of_several_workers_one_runs_it(workers: Callable[[], Connection], conn: Connection) -> None:
    counted, one, other = Counted(), workers(), workers()
    Schedule([counted.duty]).turn(one, NOBODYS)
    Schedule([counted.duty]).turn(other, NOBODYS)
    assert counted.runs == 1
    last_run(conn, 11)
    Schedule([counted.duty]).turn(other, NOBODYS)
    assert counted.runs == 2


def test_while_one_is_at_it_no_other_starts(workers: Callable[[], Connection], conn: Connection) -> None:
    counted, one, other = Counted(), workers(), workers()

    def meanwhile(worker: Connection) -> None:
        last_run(conn, 11)
        counted.what = lambda conn: None
        Schedule([counted.duty]).turn(other, NOBODYS)

    counted.what = meanwhile
    Schedule([counted.duty]).turn(one, NOBODYS)
    assert counted.runs == 1
    Schedule([counted.duty]).turn(other, NOBODYS)
    assert counted.runs == 2


def test_a_worker_that_dies_at_it_is_relieved(workers: Callable[[], Connection], conn: Connection) -> None:
    counted, one, other = Counted(), workers(), workers()
    counted.what = lambda worker: conn.execute("SELECT pg_terminate_backend(%s, 5000)", (one.info.backend_pid,))
    Schedule([counted.duty]).turn(one, NOBODYS)
    with pytest.raises(psycopg.OperationalError):
        one.execute("SELECT 1")
    last_run(conn, 11)
    counted.what = lambda conn: None
    Schedule([counted.duty]).turn(other, NOBODYS)
    assert counted.runs == 2


def test_a_failing_duty_is_noted_and_tried_again(workers: Callable[[], Connection], conn: Connection) -> None:
    counted, worker = Counted(), workers()
    counted.what = lambda conn: conn.execute("SELECT 1 / 0")
    for failures in (1, 2):
        Schedule([counted.duty]).turn(worker, NOBODYS)
        error = "DivisionByZero: division by zero"
        row = conn.execute("SELECT failures, error, ended_at IS NOT NULL FROM refold.duties").fetchone()
        assert row == (failures, error, True)
        last_run(conn, 11)
    counted.what = lambda conn: None
    Schedule([counted.duty]).turn(worker, NOBODYS)
    assert conn.execute("SELECT failures, error FROM refold.duties").fetchone() == (0, None)


def test_a_slow_duty_is_cut_off_and_the_session_is_as_before(workers: Callable[[], Connection]) -> None:
    counted, worker = Counted(patience=0.05), workers()
    counted.what = lambda conn: conn.execute("SELECT pg_sleep(60)")
    Schedule([counted.duty]).turn(worker, NOBODYS)
    row = worker.execute("SELECT error FROM refold.duties").fetchone()
    assert row is not None and row[0].startswith("QueryCanceled")
    assert worker.execute("SHOW statement_timeout").fetchone() == ("0",)


def test_workers_run_their_duties_and_go_on_when_one_fails(database_url: str, conn: Connection) -> None:
    make_live(database_url)
    failing, counted = Counted("failing", 0.01), Counted("counted", 0.01)
    failing.what = lambda worker: worker.execute("SELECT 1 / 0")

    def enough() -> bool:
        conn.commit()
        return counted.runs >= 3 and conn.execute("SELECT sum(events) FROM metrics.daily").fetchone() == (5,)

    append(conn, events(5))
    conn.commit()
    Worker(database_url, SHOP, duties=[failing.duty, counted.duty], poll=30.0, stopped=enough).run()
    assert failing.runs >= 2


def test_who_drains_does_not_stay_for_duties(database_url: str) -> None:
    counted = Counted()
    Worker(database_url, None, duties=[counted.duty]).run(drain=True)
    assert counted.runs == 0
