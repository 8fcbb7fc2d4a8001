"""Duties are done by one worker at a time, and not too often."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from refold.service.duties.schedule import Duty, Schedule
from refold.store.builds.compiled import Compiler
from tests.support.law import worker_connection

Connection = psycopg.Connection[Any]
NOBODYS = Compiler(None)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Counted:
    """A duty that counts how often it ran, and can be made to do something."""

    def __init__(self, name: str = "count", every: float = 10.0, statement_timeout_s: float = 30.0) -> None:
        self.runs = 0
        self.what: Callable[[Connection], object] = lambda conn: None
        self.duty = Duty(name, every, self._run, statement_timeout_s)

    def _run(self, conn: Connection, compiler: Compiler) -> None:
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
    counted, one, other = Counted(every=0.0), workers(), workers()

    def meanwhile(worker: Connection) -> None:
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
    with pytest.raises(psycopg.OperationalError):
        Schedule([counted.duty]).turn(one, NOBODYS)
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


def test_one_that_was_cancelled_for_a_stop_has_not_failed(workers: Callable[[], Connection], conn: Connection) -> None:
    """It is given back as it was, so that another worker takes it up and the doctor has nothing to say."""
    counted, worker = Counted(every=0.0), workers()
    counted.what = lambda conn: conn.execute("SELECT 1 / 0")
    told = threading.Event()
    schedule = Schedule([counted.duty], stopped=told.is_set)
    schedule.turn(worker, NOBODYS)

    def cancelled(conn: Connection) -> None:
        told.set()
        raise psycopg.errors.QueryCanceled("canceling statement due to user request")

    counted.what = cancelled
    with pytest.raises(psycopg.errors.QueryCanceled):
        schedule.turn(worker, NOBODYS)
    row = conn.execute("SELECT failures, error, ended_at > started_at FROM refold.duties").fetchone()
    assert row == (1, "DivisionByZero: division by zero", True)


def test_a_late_end_does_not_give_back_what_another_has_taken(
    workers: Callable[[], Connection], conn: Connection
) -> None:
    """It was taken for lost. Behind a proxy that pools transactions both may even have the same pid."""
    counted, worker = Counted(every=0.0), workers()
    counted.what = lambda worker: last_run(conn, -1)
    Schedule([counted.duty]).turn(worker, NOBODYS)
    assert conn.execute("SELECT ended_at FROM refold.duties").fetchone() == (None,)


def test_a_slow_duty_is_cut_off_and_the_session_is_as_before(workers: Callable[[], Connection]) -> None:
    counted, worker = Counted(statement_timeout_s=0.05), workers()
    counted.what = lambda conn: conn.execute("SELECT pg_sleep(60)")
    Schedule([counted.duty]).turn(worker, NOBODYS)
    row = worker.execute("SELECT error FROM refold.duties").fetchone()
    assert row is not None and row[0].startswith("QueryCanceled")
    assert worker.execute("SHOW statement_timeout").fetchone() == ("0",)
