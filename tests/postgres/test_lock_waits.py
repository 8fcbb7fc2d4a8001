"""Whoever keeps refold waiting for a lock is named, with how to end it, while the wait lasts."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.deployment.deploy import DEPLOYMENTS
from refold.postgres.connect import connect as connect_as
from refold.postgres.lock_waits import AGAIN_S, FORGET_S, NAME, LockWatch, Waits, shortened
from refold.postgres.retry import in_short_attempts
from refold.service.worker.loop import Worker
from tests.support.live import make_live
from tests.support.making import events
from tests.support.sessions import pids, somebody_waits
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]


def test_a_wait_is_told_once_a_minute() -> None:
    waits = Waits(1.0)
    assert waits.found(["pid 1"], 100.0, 0.6) == []
    # Others do not add to it, and a pause does not end it.
    assert waits.found(["pid 2"], 101.0, 0.6) == []
    assert waits.found(["pid 1"], 102.0, 0.6) == ["pid 1"]
    assert waits.found(["pid 1"], 103.0, 0.6) == []
    assert waits.found(["pid 1", "pid 2"], 102.0 + AGAIN_S, 1.2) == ["pid 1", "pid 2"]


def test_waits_long_ago_do_not_count() -> None:
    waits = Waits(1.0)
    assert waits.found(["pid 1"], 0.0, 0.9) == []
    assert waits.found(["pid 1"], FORGET_S + 1, 0.9) == []


def test_queries_are_shortened() -> None:
    assert shortened("LOCK TABLE\n   t") == "LOCK TABLE t"
    assert len(shortened("x" * 500)) == 80


@pytest.fixture
def operator(connect: Callable[..., Connection]) -> Connection:
    """A person with an open transaction."""
    return connect(application_name="psql of ann")


def told_while(waiter: Connection, wait: Callable[[], object], operator: Connection) -> str:
    """What is told first while a connection waits in a thread of its own; then the operator's transaction ends."""
    told: list[str] = []
    with LockWatch(waiter, told.append):
        thread = threading.Thread(target=wait)
        thread.start()
        try:
            wait_until(lambda: told, 20)
        finally:
            operator.rollback()
            thread.join(30)
    assert len(told) == 1
    return told[0]


@pytest.fixture
def waiter(database_url: str) -> Any:
    with connect_as(database_url, "refold_worker", autocommit=True) as conn:
        yield conn


def test_the_holder_of_a_table_is_named(operator: Connection, waiter: Connection) -> None:
    operator.execute("LOCK TABLE refold.deployments")
    told = told_while(waiter, lambda: waiter.execute("SELECT * FROM refold.deployments"), operator)
    pid = operator.info.backend_pid
    assert told.startswith(
        f"refold waits for a lock on refold.deployments, which pid {pid} ({operator.info.user}, psql"
    )
    assert "latest query: LOCK TABLE refold.deployments" in told
    assert told.endswith(f"SELECT pg_terminate_backend({pid});")


def test_the_holder_of_a_row_is_named(operator: Connection, waiter: Connection) -> None:
    operator.execute("UPDATE refold.settings SET lag_limit = 61")
    waits = "UPDATE refold.settings SET lag_limit = 62"

    def wait() -> None:
        waiter.execute("RESET ROLE")
        waiter.execute(waits)

    assert f"pid {operator.info.backend_pid} " in told_while(waiter, wait, operator)


def test_the_end_of_the_queue_is_named(
    operator: Connection, waiter: Connection, connect: Callable[..., Connection], admin: Connection
) -> None:
    operator.execute("SELECT FROM refold.deployments")
    between = connect(autocommit=True)
    # Whoever comes later waits for this one, which waits for the operator.
    queued = threading.Thread(target=lambda: between.execute("TRUNCATE refold.deployments CASCADE"))
    queued.start()
    wait_until(lambda: somebody_waits(admin))
    told = told_while(waiter, lambda: waiter.execute("SELECT FROM refold.deployments"), operator)
    queued.join(30)
    assert f"which pid {operator.info.backend_pid} " in told


def test_a_prepared_transaction_is_named(operator: Connection, waiter: Connection, admin: Connection) -> None:
    operator.execute("LOCK TABLE refold.deployments")
    operator.execute("PREPARE TRANSACTION 'ann''s'")
    operator.commit()

    class Prepared:
        def rollback(self) -> None:
            admin.execute("ROLLBACK PREPARED 'ann''s'")

    told = told_while(waiter, lambda: waiter.execute("SELECT FROM refold.deployments"), Prepared())  # type: ignore[arg-type]
    assert "prepared transaction ann's (" in told
    assert "ROLLBACK PREPARED 'ann''s'" in told


def test_short_attempts_count_together(operator: Connection, waiter: Connection) -> None:
    operator.execute("SELECT FROM refold.deployments")

    def work() -> None:
        waiter.execute("SET LOCAL ROLE NONE")
        waiter.execute("LOCK TABLE refold.deployments")

    told = told_while(waiter, lambda: in_short_attempts(waiter, 30, work), operator)
    assert f"pid {operator.info.backend_pid} " in told


def test_without_a_wait_nothing_is_told(waiter: Connection, admin: Connection) -> None:
    told: list[str] = []
    with LockWatch(waiter, told.append):
        thread = threading.Thread(target=lambda: waiter.execute("SELECT pg_sleep(2)"))
        thread.start()
        wait_until(lambda: pids(admin, NAME))
        thread.join()
    assert told == []
    wait_until(lambda: not pids(admin, NAME))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ACCESS EXCLUSIVE", "SHARE UPDATE EXCLUSIVE"])
def test_a_command_says_who_keeps_it_waiting(operator: Connection, database_url: str, mode: str) -> None:
    """The second is the mode in which commands exclude each other."""
    operator.execute(f"LOCK TABLE {DEPLOYMENTS} IN {mode} MODE".encode())
    command = subprocess.Popen(
        [sys.executable, "-m", "refold", "deploy", "--starters", "--dry-run", "--database-url", database_url],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert command.stderr is not None
        assert f"which pid {operator.info.backend_pid} (" in command.stderr.readline()
        operator.rollback()
        rest = command.communicate(timeout=60)[1]
        assert "refold waits" not in rest
    finally:
        command.kill()
        command.wait()


@pytest.mark.slow
def test_a_worker_says_it_once(
    operator: Connection, admin: Connection, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    make_live(database_url)
    append(admin, events(3))
    operator.execute("LOCK TABLE refold.deployments")
    over = threading.Event()
    thread = threading.Thread(target=Worker(database_url, None, stopped=over.is_set, poll=0.05).run)
    caplog.set_level(logging.INFO, logger="refold.worker")

    def told(what: str) -> int:
        return sum(what in record.getMessage() for record in caplog.records)

    thread.start()
    try:
        wait_until(lambda: told("refold waits for a lock on refold.deployments"), 30)
        assert told(f"which pid {operator.info.backend_pid} (") == 1
        wait_until(lambda: told("55P03"), 30)
        # It comes again and again.
        first = pids(admin, "refold worker")
        wait_until(lambda: pids(admin, "refold worker") not in ([], first), 30)
        second = pids(admin, "refold worker")
        wait_until(lambda: pids(admin, "refold worker") not in ([], second), 30)
    finally:
        operator.rollback()
        over.set()
        thread.join(30)
    assert told("refold waits for") == 1
    assert told("55P03") == 1
