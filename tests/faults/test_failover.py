"""Failover: the primary is gone, and for a while a standby answers in its place."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from refold import Log
from refold.postgres.sqlstate import transient
from refold.service.worker.loop import Worker
from refold.store.schema.migrate import migrate
from tests.conftest import ServerUnderTest
from tests.support.clusters import cluster, make_database, standby
from tests.support.live import SHOP, drain, make_live, wrong
from tests.support.proxy import Proxy
from tests.support.restored import amounts
from tests.support.waiting import wait_until

WAITING = "waiting for a primary: this server is a standby"


def counted(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute("SELECT coalesce(sum(events), 0)::integer FROM metrics.daily").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.slow
def test_workers_and_producers_wait_for_a_primary(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "refold.worker")
    stop = threading.Event()
    with cluster() as primary, ThreadPoolExecutor() as threads:
        url = make_database(primary, "shop")
        migrate(url)
        make_live(url)
        behind = ServerUnderTest.at(primary.url)
        with (
            standby(primary) as copy,
            psycopg.connect(copy.url_of("shop"), autocommit=True) as there,
            Proxy(behind) as address,
            Proxy(behind) as producers,
            Log(producers.url_of("shop")) as log,
        ):
            log.append(amounts(30))
            work = Worker(address.url_of("shop"), SHOP, poll=0.1, stopped=stop.is_set)
            working = threads.submit(work.run)
            try:
                wait_until(lambda: counted(there) == 30, deadline_s=30)
                for proxy in (address, producers):
                    proxy.lead_to(ServerUnderTest.at(copy.url))
                primary.stop(immediate=True)
                wait_until(lambda: WAITING in caplog.text or working.done(), deadline_s=30)
                appending = threads.submit(log.append, amounts(35))
                # The connection of before, and two that met the standby.
                wait_until(lambda: producers.accepted >= 3 or appending.done(), deadline_s=30)
                assert not working.done() and not appending.done()

                there.execute("SELECT pg_promote()")
                assert len(appending.result(60)) == 35
                wait_until(lambda: counted(there) == 35, deadline_s=30)
            finally:
                stop.set()
            working.result(30)
            drain(copy.url_of("shop"))
            assert wrong(copy.url_of("shop")) == {}
    told = [record.getMessage() for record in caplog.records]
    assert sum(WAITING in one for one in told) == 1
    assert told[-1] == "connected again; work continues"


def test_a_server_that_only_reads_by_now_is_one_that_is_away() -> None:
    """A pooling proxy hands over a session of the standby."""
    assert transient(psycopg.errors.ReadOnlySqlTransaction())
