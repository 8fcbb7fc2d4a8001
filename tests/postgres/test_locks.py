"""Exclusion: only refold's own roles can take the locks that matter, and who has one is named."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from refold import append
from refold.engine.deployment.deploy import DEPLOYMENTS, one_at_a_time, rebuild
from refold.errors import BuildError
from refold.postgres.connect import connect as connect_as
from refold.postgres.locks import alone, holder
from refold.service.worker.listener import Listener, holders
from refold.store.builds.build import live
from refold.store.schema.migrate import migrate
from refold.store.schema.resources import sql_dir
from tests.support.live import SHOP, drain, make_live, wrong
from tests.support.making import events, small_segments, stored
from tests.support.processes import worker
from tests.support.sessions import pids, somebody_waits
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]

OLD_KEYS = range(8246178264892741632, 8246178264892741640)
"""The listener, and what refold once took besides."""


@pytest.fixture
def stranger(admin: Connection, database_url: str) -> Iterator[Connection]:
    """A login that may connect and nothing else."""
    name = sql.Identifier(f"refold_stranger_{os.getpid()}")
    admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(name))
    with psycopg.connect(make_conninfo(database_url, user=f"refold_stranger_{os.getpid()}"), autocommit=True) as conn:
        yield conn
    admin.execute(sql.SQL("DROP ROLE {}").format(name))


def test_a_stranger_with_every_advisory_lock_stops_nobody(
    stranger: Connection, admin: Connection, database_url: str
) -> None:
    for key in OLD_KEYS:
        stranger.execute("SELECT pg_advisory_lock(%s)", (key,))
    small_segments(admin, 10)
    with psycopg.connect(database_url, options="-c lock_timeout=5s") as producer:
        append(producer, events(500))
    migrate(database_url)
    make_live(database_url)
    drain(database_url)
    with connect_as(database_url, "refold_worker", autocommit=True) as conn:
        rebuild(conn, SHOP, ["daily"], lambda progress: None)
    assert wrong(database_url) == {}


def test_a_stranger_cannot_take_the_locks(stranger: Connection) -> None:
    for table in ("refold.events", DEPLOYMENTS, "refold.alembic_version"):
        for mode in ("ACCESS SHARE", "SHARE UPDATE EXCLUSIVE"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), stranger.transaction():
                stranger.execute(f"LOCK TABLE {table} IN {mode} MODE".encode())
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        stranger.execute("SELECT refold.lock_segments(true)")


@pytest.mark.parametrize("role", ["refold_producer", "refold_analyst"])
def test_neither_can_producers_and_analysts(role: Any, database_url: str) -> None:
    with connect_as(database_url, role, autocommit=True) as conn:
        for table in ("refold.events", DEPLOYMENTS, "refold.alembic_version"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), conn.transaction():
                conn.execute(f"LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("SELECT refold.lock_segments(true)")


def test_nothing_waits_for_an_advisory_lock() -> None:
    """Whoever may connect can have it for ever. Of the sleepers, that is harmless: see below."""
    for path in sorted(sql_dir().rglob("*.sql")):
        text = path.read_text()
        assert "pg_advisory_lock" not in text and "pg_advisory_xact_lock" not in text, path
        assert path.name == "notify_sleepers.sql" or "advisory_" not in text, path


@contextmanager
def making_segments(database_url: str) -> Iterator[Connection]:
    """A producer that needed room, and stays open."""
    with psycopg.connect(database_url, application_name="shop checkout") as other:
        append(other, events(60, "open-"))
        yield other


def test_who_keeps_the_log_from_getting_room_is_named(admin: Connection, database_url: str) -> None:
    small_segments(admin, 10)
    with making_segments(database_url) as other, psycopg.connect(database_url) as producer:
        producer.execute("SET lock_timeout = '100ms'")
        pid = other.info.backend_pid
        with pytest.raises(psycopg.errors.LockNotAvailable, match=rf"pid {pid} \({other.info.user}, shop checkout"):
            append(producer, events(60))
        producer.rollback()
        assert producer.execute("SHOW lock_timeout").fetchone() == ("0",)
        other.commit()
        append(producer, events(60))
        # What bounds one statement of a function does not stay with the caller's transaction.
        assert producer.execute("SHOW lock_timeout").fetchone() == ("0",)
        producer.commit()
    assert len(stored(admin)) == 120


def test_a_prepared_transaction_is_named_too(admin: Connection, database_url: str) -> None:
    small_segments(admin, 10)
    with psycopg.connect(database_url) as other, psycopg.connect(database_url) as producer:
        other.tpc_begin(other.xid(1, "order-7", "shop"))
        append(other, events(60, "open-"))
        other.tpc_prepare()
        producer.execute("SET lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable, match="the prepared transaction 1_"):
            append(producer, events(60))
        producer.rollback()
        other.tpc_rollback()
        append(producer, events(60))


def test_room_that_is_there_is_not_waited_for(admin: Connection, database_url: str) -> None:
    """Half of the reserve is gone and somebody makes more: the others go on with the other half."""
    small_segments(admin, 10)
    with psycopg.connect(database_url) as other, psycopg.connect(database_url, autocommit=True) as producer:
        other.execute("LOCK TABLE ONLY refold.events IN SHARE UPDATE EXCLUSIVE MODE")
        producer.execute("SET lock_timeout = '1ms'")
        append(producer, events(6))
        append(producer, events(6, "more-"))


def test_one_deployment_is_begun_at_a_time(admin: Connection, database_url: str) -> None:
    with (
        connect_as(database_url, "refold_worker", autocommit=True, application_name="refold deploy") as one,
        connect_as(database_url, "refold_worker", autocommit=True) as other,
    ):
        with one_at_a_time(one):
            named = rf"pid \d+ \({one.info.user}, refold deploy, since .* UTC\)"
            assert holder(other, DEPLOYMENTS) is not None
            with pytest.raises(BuildError, match=named), one_at_a_time(other, seconds=0.1):
                pass
            # What deploys, pages and audits do goes on.
            one.execute("INSERT INTO refold.deployments (kind) VALUES ('deploy')")
            other.execute("UPDATE refold.deployments SET promote = promote")
            # Neither cursors nor vacuum wait for who has it.
            assert admin.execute(
                "SELECT backend_xid, backend_xmin FROM pg_stat_activity"
                " WHERE application_name = 'refold deploy' AND state = 'idle in transaction'"
            ).fetchall() == [(None, None)]
        # Its session ends a moment after its connection.
        wait_until(lambda: holder(other, DEPLOYMENTS) is None)
        with one_at_a_time(other, seconds=0.1):
            pass


def test_one_that_waits_goes_on_when_the_other_has_ended(admin: Connection, database_url: str) -> None:
    done: list[str] = []

    def second() -> None:
        with connect_as(database_url, "refold_worker", autocommit=True) as conn, one_at_a_time(conn):
            done.append("second")

    thread = threading.Thread(target=second)
    with connect_as(database_url, "refold_worker", autocommit=True) as conn, one_at_a_time(conn):
        thread.start()
        wait_until(lambda: somebody_waits(admin))
        done.append("first")
    thread.join(10)
    assert done == ["first", "second"]


def test_who_dies_lets_go(admin: Connection, database_url: str) -> None:
    with (
        connect_as(database_url, "refold_worker", autocommit=True, application_name="killed") as conn,
        pytest.raises(psycopg.OperationalError),
        one_at_a_time(conn),
    ):
        for pid in pids(admin, "killed"):
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        conn.execute("SELECT 1")
    assert holder(admin, DEPLOYMENTS) is None


def test_one_migration_at_a_time(admin: Connection, database_url: str) -> None:
    with (
        connect_as(database_url, autocommit=True, application_name="refold migrate") as conn,
        alone(conn, "refold.alembic_version", "migrate", "refold_owner"),
        pytest.raises(BuildError, match=r"only one session may migrate at a time.*refold migrate"),
    ):
        migrate(database_url, seconds=0.1)
    migrate(database_url)


# ---------------------------------------------------------------- the sleepers' lock, which anybody may hold


@pytest.mark.live("shop")
def test_whoever_holds_the_flag_exclusively_makes_workers_poll_and_is_named(
    stranger: Connection, admin: Connection, database_url: str, producer: Connection
) -> None:
    make_live(database_url)
    stranger.execute("SELECT pg_advisory_lock(%s)", (OLD_KEYS[0],))
    with worker(database_url, SHOP, drain=False, poll=0.2) as process:
        for number in range(3):
            append(producer, events(10, f"{number}-"))
            producer.commit()
            wait_until(
                lambda: admin.execute("SELECT sum(events) FROM metrics.daily").fetchone() == (10 * (number + 1),),  # noqa: B023
                deadline_s=20,
            )
        wait_until(lambda: wrong(database_url) == {})
        assert process.stderr is not None
        # It says so when it wants to sleep, which is when it has nothing to do.
        told = process.stderr.readline()
        process.kill()
        told += process.stderr.read()
    assert f"pid {stranger.info.backend_pid}" in told and "polling" in told
    assert "Traceback" not in told


def test_a_sleeper_that_cannot_raise_its_flag_does_not_look_all_the_time(
    stranger: Connection, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    stranger.execute("SELECT pg_advisory_lock(%s)", (OLD_KEYS[0],))
    with (
        psycopg.connect(database_url, autocommit=True) as conn,
        psycopg.connect(database_url, autocommit=True) as other,
    ):
        bell = Listener(conn, poll=60.0)
        assert bell.self_test(other)
        while not any("holds the sleepers" in message for message in caplog.messages):
            bell.sleep(lambda: False, lambda: True)
        asked: list[bool] = []

        def stopped() -> bool:
            asked.append(True)
            return len(asked) == 10

        # One sleep lasts until it is told to stop, or until the poll.
        bell.sleep(lambda: False, stopped)
        assert len(asked) == 10
        stranger.execute("SELECT pg_advisory_unlock_all()")
        bell.sleep(lambda: True, lambda: False)
        assert len(holders(conn)) == 1


def test_whoever_holds_the_flag_shared_makes_producers_ring(
    stranger: Connection, database_url: str, producers: Callable[..., Connection]
) -> None:
    """Each append notifies, and commits: slower, and harmless."""
    stranger.execute("SELECT pg_advisory_lock_shared(%s)", (OLD_KEYS[0],))
    stranger.execute("LISTEN refold")
    for number in range(3):
        with producers() as producer:
            append(producer, events(5, f"{number}-"))
    heard = list(stranger.notifies(timeout=5, stop_after=3))
    assert len(heard) == 3
    with connect_as(database_url, "refold_worker") as conn:
        assert live(conn, "daily") is None
        assert conn.execute("SELECT count(*) FROM refold.events").fetchone() == (15,)
