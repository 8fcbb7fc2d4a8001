"""Fault 23: a proxy that pools transactions stands between workers and server."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from conftest import ServerUnderTest
from live import SHOP, make_live, wrong
from making import events
from pgbouncer import BINARY, pgbouncer
from processes import Process, worker
from refold import append
from refold.database import SESSION
from refold.doctor.notifications import listens
from refold.duties.every import DUTIES
from refold.errors import DatabaseError
from refold.worker.loop import Worker
from refold.worker.schedule import Duty
from sessions import advisory_locks
from waiting import wait_until

Connection = psycopg.Connection[Any]

pytestmark = pytest.mark.skipif(BINARY is None, reason="pgbouncer is not installed")


@pytest.fixture
def login(admin: Connection, database_url: str) -> Iterator[sql.Identifier]:
    """A login that only workers use."""
    name = sql.Identifier(f"refold_pooled_{os.getpid()}")
    admin.execute(sql.SQL("CREATE ROLE {} LOGIN IN ROLE refold_worker").format(name))
    yield name
    admin.execute(sql.SQL("DROP OWNED BY {}").format(name))
    admin.execute(sql.SQL("DROP ROLE {}").format(name))


@pytest.fixture
def proxied(server: ServerUnderTest, admin: Connection, login: sql.Identifier) -> Iterator[str]:
    """The worker login's URL, through the proxy."""
    user = f"refold_pooled_{os.getpid()}"
    with pgbouncer(server, admin.info.dbname, user) as url:
        yield url.replace(f"//{server.user}@", f"//{user}@")


def with_settings(admin: Connection, login: sql.Identifier) -> None:
    """What the refusal tells one to do."""
    for name, value in (SESSION | {"role": "refold_worker"}).items():
        text = sql.SQL(value) if name == "search_path" else sql.Literal(value)
        admin.execute(sql.SQL("ALTER ROLE {} SET {} = {}").format(login, sql.Identifier(name), text))


def said(process: Process) -> str:
    """What a worker wrote until it was killed."""
    process.kill()
    assert process.stderr is not None
    return process.stderr.read()


def test_the_doctor_says_so(proxied: str, database_url: str) -> None:
    for url, verdict in ((proxied, "warn"), (database_url, "ok")):
        with psycopg.connect(url, autocommit=True) as conn:
            [check] = listens(url, conn)
        assert (check.verdict, "there is a proxy" in check.found) == (verdict, url == proxied)


@pytest.mark.parametrize("drain", [True, False])
def test_a_login_without_settings_is_refused_with_the_remedy(
    proxied: str, admin: Connection, login: sql.Identifier, drain: bool
) -> None:
    """SET would hold for whichever session the next transaction gets, or not."""
    with pytest.raises(DatabaseError, match="pools transactions") as refused:
        Worker(proxied, SHOP).run(drain=drain)
    statements = (refused.value.remedy or "").partition("use: ")[2]
    admin.execute(statements.encode())
    Worker(proxied, SHOP).run(drain=True)


def test_workers_say_so_and_poll(
    proxied: str, database_url: str, admin: Connection, login: sql.Identifier, producers: Callable[..., Connection]
) -> None:
    make_live(database_url)
    with_settings(admin, login)
    with (
        worker(proxied, SHOP, drain=False, poll=0.2) as one,
        worker(proxied, SHOP, drain=False, poll=0.2) as other,
    ):
        for number in range(4):
            with producers() as producer:
                append(producer, events(40, f"{number}-"))
            wait_until(
                lambda: admin.execute("SELECT sum(events) FROM metrics.daily").fetchone() == (40 * (number + 1),),  # noqa: B023
                deadline_s=20,
            )
            assert advisory_locks(admin) == 0
        wait_until(lambda: wrong(database_url) == {})
        for process in (one, other):
            told = said(process)
            assert "transaction-pooling proxy" in told
            assert "Traceback" not in told
    assert advisory_locks(admin) == 0


def test_duties_are_done_and_given_back(
    proxied: str, database_url: str, admin: Connection, login: sql.Identifier
) -> None:
    """Each of their transactions may run in another session; who has a duty is not told by one."""
    make_live(database_url)
    with_settings(admin, login)
    duties = [Duty(duty.name, 0.1, duty.run, duty.patience) for duty in DUTIES]
    stop = threading.Event()
    thread = threading.Thread(target=Worker(proxied, SHOP, duties=duties, poll=0.1, stopped=stop.is_set).run)
    thread.start()
    try:
        for _ in range(3):
            now = admin.execute("SELECT clock_timestamp()").fetchone()
            seen: set[str] = set()

            def done(now: tuple[Any, ...] | None, seen: set[str]) -> bool:
                rows = admin.execute(
                    "SELECT name FROM refold.duties WHERE ended_at >= started_at AND started_at > %s AND error IS NULL",
                    now,
                )
                seen.update(name for (name,) in rows)
                return len(seen) == len(duties)

            wait_until(lambda: done(now, seen), deadline_s=20)  # noqa: B023
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
    # What the sessions that others get next were given.
    with psycopg.connect(proxied, autocommit=True) as other:
        assert other.execute(
            "SELECT current_setting('statement_timeout'), current_setting('lock_timeout')"
        ).fetchone() == (
            "0",
            "0",
        )
