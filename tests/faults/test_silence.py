"""Fault 8: the peer goes silent. The connection stays open, and nothing comes any more."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from refold import Log, append
from refold.service.worker.loop import Worker
from refold.store.log.append import BULK
from tests.conftest import ServerUnderTest
from tests.support.live import SHOP, make_live, wrong
from tests.support.making import events, ids, stored
from tests.support.proxy import Proxy, silent_after
from tests.support.sessions import advisory_locks
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits does so for a moment."""
    monkeypatch.setattr("refold.postgres.watchdog.SILENT_AFTER_S", 0.2)
    # The least that libpq knows.
    monkeypatch.setattr("refold.postgres.connect.CONNECT_S", 2)


@pytest.mark.slow
@pytest.mark.parametrize("size", [3, BULK + 1], ids=str)
@pytest.mark.parametrize("direction", ["to server", "to client"])
def test_a_producer(server: ServerUnderTest, admin: Connection, size: int, direction: Any) -> None:
    """Wherever it happens, the batch is in, once."""
    with Proxy(server) as whole, Log(whole.url_of(admin.info.dbname)) as log:
        log.append(events(size, "whole"))
        log.close()
        length = whole.sent if direction == "to server" else whole.received
    offered = events(size, "whole")
    for count in range(length // 2, length - 100, max(1, length // 5)):
        batch = events(size, f"silent{count}-")
        with Proxy(server, silent_after(count, direction)) as proxy, Log(proxy.url_of(admin.info.dbname)) as log:
            answers = {str(receipt.answer) for receipt in log.append(batch)}
            assert proxy.silences == 1
        assert answers in ({"accepted"}, {"duplicate"})
        offered += batch
    assert stored(admin) == ids(offered)


@pytest.mark.live("shop")
@pytest.mark.parametrize("direction", ["to server", "to client"])
def test_a_worker(
    server: ServerUnderTest, database_url: str, producer: Connection, admin: Connection, direction: Any
) -> None:
    make_live(database_url)
    append(producer, events(20, "whole"))
    producer.commit()
    with Proxy(server) as whole:
        Worker(whole.url_of(admin.info.dbname), SHOP).run(drain=True)
        length = whole.sent if direction == "to server" else whole.received
    for count in range(length // 5, length - 200, length // 5):
        append(producer, events(20, f"silent{count}-"))
        producer.commit()
        with Proxy(server, silent_after(count, direction)) as proxy:
            Worker(proxy.url_of(admin.info.dbname), SHOP).run(drain=True)
            assert proxy.silences == 1
    assert wrong(database_url) == {}
    wait_until(lambda: advisory_locks(admin) == 0)


@pytest.mark.slow
def test_a_server_that_lets_nobody_in(server: ServerUnderTest, admin: Connection) -> None:
    """Silent from the first byte: the attempt ends, and the next one gets through."""
    with Proxy(server, silent_after(1)) as proxy, Log(proxy.url_of(admin.info.dbname)) as log:
        assert [str(receipt.answer) for receipt in log.append(events(2))] == ["accepted"] * 2
        assert proxy.silences == 1


@pytest.mark.parametrize("busy", ["SELECT pg_sleep(1.5)", "SELECT pg_advisory_xact_lock(7)"])
def test_a_long_statement_is_not_taken_for_silence(
    database_url: str, admin: Connection, connect: Callable[..., Connection], busy: str
) -> None:
    """The server says that it works on it, or waits for a lock, and so the client waits too."""
    with Log(database_url) as log:
        attempts: list[int] = []

        def work(conn: Connection) -> None:
            attempts.append(1)
            conn.execute(busy.encode())

        blocker = connect()
        blocker.execute("SELECT pg_advisory_xact_lock(7)")
        later = threading.Timer(1.5, blocker.rollback)
        later.start()
        log.run(work)
        later.join()
        assert len(attempts) == 1
