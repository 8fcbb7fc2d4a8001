"""Fault 13: errors that the database asks to be retried. The whole transaction runs again, by SQLSTATE, and no more."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from refold import Log, append
from refold.postgres.connect import connect as connect_as
from refold.postgres.sqlstate import transient
from refold.store.builds.build import find
from tests.support.at_once import at_once
from tests.support.live import SHOP, drain, make_live, wrong
from tests.support.making import events, ids, stored
from tests.support.processes import worker
from tests.support.sessions import pids, terminate
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]


@pytest.mark.live("shop")
def test_a_worker_whose_session_is_ended_in_the_middle_of_a_page(
    database_url: str, producer: Connection, admin: Connection, connect: Callable[..., Connection]
) -> None:
    """By an operator, while it waits for a lock with half of its work done; time and again."""
    tables = make_live(database_url)
    append(producer, events(30))
    producer.commit()
    with worker(database_url, SHOP, drain=False, poll=0.05) as process:
        for table in list(tables.values())[:3]:
            blocker = connect()
            blocker.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
            append(producer, events(10, table))
            producer.commit()
            (before,) = wait_until(lambda: pids(admin, "refold worker", waiting=True))
            assert terminate(admin, "refold worker") == 1
            # It comes back by itself, and stands before the same lock.
            _stands_again(admin, before)
            blocker.rollback()
        wait_until(lambda: admin.execute("SELECT sum(events) FROM metrics.daily").fetchone() == (60,), deadline_s=30)
        assert process.poll() is None
    drain(database_url)
    assert wrong(database_url) == {}


def _stands_again(admin: Connection, before: int) -> None:
    wait_until(lambda: [pid for pid in pids(admin, "refold worker", waiting=True) if pid != before])


@pytest.mark.live("shop")
def test_a_worker_in_a_deadlock(database_url: str, producer: Connection, admin: Connection) -> None:
    """An operator locks a metric's table and then its build, a worker the other way round; the worker is the one."""
    tables = make_live(database_url)
    admin.execute(f"ALTER DATABASE \"{admin.info.dbname}\" SET deadlock_timeout = '50ms'".encode())
    append(producer, events(30))
    producer.commit()
    with (
        psycopg.connect(database_url, options="-c deadlock_timeout=20s") as operator,
        worker(database_url, SHOP, drain=False, poll=0.05) as process,
    ):
        (daily,) = find(operator, "b.projection = 'daily'")
        wait_until(lambda: admin.execute("SELECT sum(events) FROM metrics.daily").fetchone() == (30,), deadline_s=30)
        operator.execute(f"LOCK TABLE {tables['daily']} IN ACCESS EXCLUSIVE MODE".encode())
        append(producer, events(10, "more"))
        producer.commit()
        wait_until(lambda: pids(admin, "refold worker", waiting=True))
        operator.execute("SELECT FROM refold.builds WHERE build_id = %s FOR UPDATE", (daily.build_id,))
        operator.rollback()
        wait_until(lambda: admin.execute("SELECT sum(events) FROM metrics.daily").fetchone() == (40,), deadline_s=30)
        assert process.poll() is None
    # The statistics may come a moment later than the answer.
    query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    wait_until(lambda: admin.execute(query).fetchone() not in (None, (0,)))
    assert wrong(database_url) == {}


def test_serialization_failures_end_in_a_retry(database_url: str, admin: Connection) -> None:
    """Two applications that append under SERIALIZABLE what they have read of each other."""
    met = threading.Barrier(2)
    tries: Counter[str] = Counter()
    admin.execute("CREATE TABLE orders (placed integer)")
    admin.execute("GRANT SELECT, INSERT ON orders TO refold_producer")

    def place(who: str) -> None:
        def work(conn: Connection) -> None:
            tries[who] += 1
            conn.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            conn.execute("SELECT count(*) FROM public.orders")
            if tries[who] == 1:
                met.wait(30)
            conn.execute("INSERT INTO public.orders VALUES (1)")
            append(conn, events(2, who))

        with Log(database_url) as log:
            log.run(work)

    at_once(lambda: place("a"), lambda: place("b"))
    assert sorted(tries.values()) == [1, 2]
    assert stored(admin) == ids([*events(2, "a"), *events(2, "b")])


def test_a_racing_id_under_a_stale_snapshot_is_retried(
    database_url: str, producer: Connection, admin: Connection
) -> None:
    """REPEATABLE READ does not see the winner, so refold itself asks for the retry."""
    tries: list[int] = []

    def work(conn: Connection) -> list[str]:
        tries.append(1)
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        conn.execute("SELECT 1")
        if len(tries) == 1:
            append(producer, events(1))
            producer.commit()
        return [str(receipt.answer) for receipt in append(conn, events(2))]

    with Log(database_url) as log:
        assert log.run(work) == ["duplicate", "accepted"]
    assert len(tries) == 2
    assert stored(admin) == ids(events(2))


def test_a_producer_that_idles_in_its_transaction(database_url: str, admin: Connection) -> None:
    """The server ends it (25P03); nothing of it is there, and all of it after the retry."""
    tries: list[int] = []
    with Log(database_url) as log:

        def work(conn: Connection) -> None:
            tries.append(1)
            append(conn, events(3))
            if len(tries) == 1:
                conn.execute("SET LOCAL idle_in_transaction_session_timeout = '50ms'")
                wait_until(lambda: not pids(admin, "refold log"))
                assert stored(admin) == []
            conn.execute("SELECT 1")

        log.run(work)
    assert len(tries) == 2
    assert stored(admin) == ids(events(3))


@pytest.mark.slow
@pytest.mark.live("shop")
def test_a_table_that_somebody_has_locked_holds_up_no_other(
    database_url: str, producer: Connection, admin: Connection, connect: Callable[..., Connection]
) -> None:
    """A worker waits for a lock for a moment (55P03), and begins again with the others."""
    tables = make_live(database_url)
    blocker = connect()
    blocker.execute(f"LOCK TABLE {tables['daily']} IN ACCESS EXCLUSIVE MODE".encode())
    append(producer, events(9))
    producer.commit()
    with worker(database_url, SHOP, poll=0.05) as process:
        # The others go on meanwhile: what failed comes last.
        wait_until(lambda: admin.execute("SELECT count(*) FROM metrics.graded").fetchone() == (9,), deadline_s=30)
        assert process.poll() is None
        blocker.rollback()
        assert process.wait(60) == 0
    assert wrong(database_url) == {}


@pytest.mark.parametrize("role", ["refold_producer", "refold_worker"])
def test_a_connection_that_ends_between_two_transactions(database_url: str, admin: Connection, role: Any) -> None:
    with connect_as(database_url, role, autocommit=True, application_name="doomed") as conn:
        assert terminate(admin, "doomed") == 1
        with pytest.raises(psycopg.OperationalError) as ended:
            conn.execute("SELECT 1")
    assert transient(ended.value)
