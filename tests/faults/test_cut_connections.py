"""Faults 6 and 7 for workers and deploys: the connection breaks anywhere, also when the work is done and nobody knows.

Producers have theirs in tests/log/test_log.py and tests/ingest/test_run.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.deployment.deploy import rebuild
from refold.service.worker.loop import Worker
from refold.store.builds.build import kept
from tests.conftest import ServerUnderTest
from tests.support.live import SHOP, drain, make_live, wrong
from tests.support.making import events
from tests.support.proxy import Proxy, Rule, cut_after, reply_lost
from tests.support.sessions import advisory_locks
from tests.support.waiting import wait_until

pytestmark = pytest.mark.live("shop")

Connection = psycopg.Connection[Any]
Append = Callable[[int, str], None]


@pytest.fixture
def more(database_url: str, producer: Connection) -> Append:
    """Appends events to a log over which the shop is live."""
    make_live(database_url)

    def more(count: int, prefix: str) -> None:
        append(producer, [{**e, "metadata": {"amount": 40 * at}} for at, e in enumerate(events(count, prefix))])
        producer.commit()

    return more


def drained_through(server: ServerUnderTest, database: str, rule: Rule) -> None:
    """A worker applies everything over a connection that breaks once."""
    with Proxy(server, rule) as proxy:
        Worker(proxy.url_of(database), SHOP).run(drain=True)
        assert proxy.cuts == 1


def counted(conn: Connection) -> int:
    row = conn.execute("SELECT coalesce(sum(events), 0)::integer FROM metrics.daily").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("time", range(1, 8))
def test_a_page_whose_commit_was_not_confirmed(
    server: ServerUnderTest, database_url: str, more: Append, admin: Connection, time: int
) -> None:
    """It is applied and the worker cannot know. The cursor does: one page for each build of the shop."""
    more(30, "e")
    drained_through(server, admin.info.dbname, reply_lost("COMMIT", time))
    assert counted(admin) == 30
    assert wrong(database_url) == {}
    pages = admin.execute("SELECT array_agg(DISTINCT pages_applied) FROM refold.builds_now").fetchone()
    assert pages == ([1],)


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["to server", "to client"])
def test_a_worker_cut_off_anywhere(
    server: ServerUnderTest, database_url: str, more: Append, admin: Connection, direction: Any
) -> None:
    """Connecting, locking, in the middle of a COPY, before the commit: a page is there as a whole or not at all."""
    more(20, "whole")
    with Proxy(server) as whole:
        Worker(whole.url_of(admin.info.dbname), SHOP).run(drain=True)
        length = whole.sent if direction == "to server" else whole.received
    total = 20
    for count in range(1, length - 200, length // 15):
        more(20, f"cut{count}-")
        total += 20
        drained_through(server, admin.info.dbname, cut_after(count, direction))
        assert counted(admin) == total
    assert wrong(database_url) == {}
    wait_until(lambda: advisory_locks(admin) == 0)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(1, 8))
def test_a_rebuild_cut_off_anywhere(
    server: ServerUnderTest, database_url: str, more: Append, admin: Connection, part: int
) -> None:
    """Nobody retries for the operator; what was begun is resumed by any worker, and what is live stays live."""
    more(20, "e")
    drain(database_url)

    def run(url: str) -> None:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("SET ROLE refold_worker")
            rebuild(conn, SHOP, ["graded"], lambda progress: None, cascade=True)

    with Proxy(server) as whole:
        run(whole.url_of(admin.info.dbname))
        length = whole.sent
    with Proxy(server, cut_after(length * part // 8)) as proxy, pytest.raises(psycopg.OperationalError):
        run(proxy.url_of(admin.info.dbname))
    assert counted(admin) == 20
    assert wrong(database_url) == {}
    more(5, "later")
    drain(database_url)
    assert counted(admin) == 25
    assert wrong(database_url) == {}
    assert {build.state for build in kept(admin)} == {"live"}
    wait_until(lambda: advisory_locks(admin) == 0)
