"""Faults 4 and 5: transactions that stay open, in the log, beside it, in another database, or prepared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from refold import append
from refold.inspect.status import read as read_status
from refold.postgres.connect import connect as connect_as
from refold.store.log.append import BULK
from tests.conftest import ServerUnderTest
from tests.support.live import drain, make_live, wrong
from tests.support.making import events

Connection = psycopg.Connection[Any]


@contextmanager
def held(url: str, statement: str) -> Iterator[Connection]:
    """A transaction that has written something and stays open."""
    with psycopg.connect(url) as conn:
        conn.execute(statement.encode())
        assert conn.execute("SELECT pg_current_xact_id_if_assigned() IS NOT NULL").fetchone() == (True,)
        yield conn


def counted(conn: Connection) -> int:
    row = conn.execute("SELECT coalesce(sum(events), 0) FROM metrics.daily").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.live("shop")
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("where", ["another table", "another database"])
def test_a_writer_elsewhere_holds_nobody_up(
    server: ServerUnderTest, database_url: str, producers: Callable[..., Connection], admin: Connection, where: str
) -> None:
    """A fence at the oldest open transaction would stop here, whatever database it is in."""
    make_live(database_url)
    admin.execute("CREATE TABLE orders (id integer)")
    url, statement = database_url, "INSERT INTO orders VALUES (1)"
    if where == "another database":
        url, statement = server.url_of(server.maintenance_dbname), "SELECT pg_current_xact_id()"
    producer = producers()
    with held(url, statement) as holder:
        for number in range(3):
            append(producer, events(5, f"{number}-"))
            producer.commit()
            drain(database_url)
            assert counted(admin) == 5 * (number + 1)
        assert admin.execute("SELECT DISTINCT lag_events FROM metrics.freshness").fetchall() == [(0,)]
        if where == "another table":
            # An old transaction that turns to the log late: its id is far behind all cursors.
            append(holder, events(4, "late"))
        holder.commit()
    drain(database_url)
    assert counted(admin) == 15 + (4 if where == "another table" else 0)
    assert wrong(database_url) == {}


@pytest.mark.live("shop")
@pytest.mark.usefixtures("impatient")
def test_a_writer_of_the_log_delays_its_own_events_alone(
    database_url: str, producers: Callable[..., Connection], admin: Connection
) -> None:
    make_live(database_url)
    slow, quick = producers(), producers()
    append(slow, events(5, "slow"))
    worker = connect_as(database_url, "refold_worker", autocommit=True)
    with worker:
        for number in range(3):
            append(quick, events(5, f"{number}-"))
            quick.commit()
            drain(database_url)
            assert counted(admin) == 5 * (number + 1)
            # While it lasts, it shows.
            assert [holder.name for holder in read_status(worker).sessions] == [str(slow.info.backend_pid)]
        append(slow, events(2, "slower"))
        slow.commit()
        assert admin.execute("SELECT DISTINCT lag_events FROM metrics.freshness").fetchall() == [(7,)]
        drain(database_url)
        assert read_status(worker).sessions == []
    assert counted(admin) == 22
    assert wrong(database_url) == {}


@pytest.mark.live("shop")
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("ending", ["COMMIT PREPARED", "ROLLBACK PREPARED"])
def test_a_prepared_transaction_is_invisible_until_it_commits(
    database_url: str, producers: Callable[..., Connection], admin: Connection, ending: str
) -> None:
    make_live(database_url)
    caller, other = producers(), producers()
    append(caller, events(BULK, "prepared"))
    caller.execute("PREPARE TRANSACTION 'orphan'")
    append(other, events(5))
    other.commit()
    drain(database_url)
    assert counted(admin) == 5
    with connect_as(database_url, "refold_worker", autocommit=True) as worker:
        assert [holder.name for holder in read_status(worker).prepared] == ["orphan"]
    admin.execute(f"{ending} 'orphan'".encode())
    append(other, events(2, "later"))
    other.commit()
    drain(database_url)
    assert counted(admin) == 7 + (BULK if ending == "COMMIT PREPARED" else 0)
    assert wrong(database_url) == {}


@pytest.mark.live("shop")
@pytest.mark.usefixtures("impatient")
def test_savepoints_are_of_their_transaction(
    database_url: str, producers: Callable[..., Connection], admin: Connection
) -> None:
    """Also more of them than a snapshot lists by name (64)."""
    make_live(database_url)
    slow, quick = producers(), producers()
    append(slow, events(1, "first"))
    for number in range(100):
        with slow.transaction(force_rollback=number % 3 == 0):
            append(slow, events(1, f"slow{number}-"))
        if number % 25 == 0:
            append(quick, events(1, f"quick{number}-"))
            quick.commit()
            drain(database_url)
    assert counted(admin) == 4
    slow.commit()
    drain(database_url)
    assert counted(admin) == 4 + 1 + 66
    assert admin.execute("SELECT count(DISTINCT txid) FROM refold.events WHERE event_id LIKE 'slow%'").fetchone() == (
        1,
    )
    assert wrong(database_url) == {}


def test_a_sleeping_worker_and_two_phase_producers(
    producers: Callable[..., Connection], connect: Callable[..., Connection]
) -> None:
    """A transaction that has notified cannot be prepared, so such producers turn the listener off."""
    sleeper = connect(autocommit=True)
    sleeper.execute("SELECT pg_advisory_lock_shared(refold.sleepers_lock())")
    producer = producers()
    append(producer, events(1))
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="NOTIFY"):
        producer.execute("PREPARE TRANSACTION 'rung'")
    producer.rollback()
    producer.execute("SET refold.notify = off")
    producer.commit()
    for size in (1, BULK + 1):
        append(producer, events(size, f"silent{size}-"))
        producer.execute(f"PREPARE TRANSACTION 'silent{size}'".encode())
