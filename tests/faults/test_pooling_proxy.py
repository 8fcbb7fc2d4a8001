"""Fault 23: a proxy that pools transactions stands between workers and server."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner

from refold import Log, append
from refold.cli.app import app
from refold.engine.deployment.deploy import deploy
from refold.errors import DatabaseError
from refold.inspect.doctor.notifications import listens
from refold.model.projection.definition import load_directory
from refold.postgres.connect import connect as connect_as
from refold.postgres.session import SESSION
from refold.service.duties.registry import DUTIES
from refold.service.duties.schedule import Duty
from refold.service.worker.loop import Worker
from refold.store.schema.migrate import migrate
from tests.conftest import ServerUnderTest
from tests.support.live import SHOP, make_live, wrong
from tests.support.making import events
from tests.support.pgbouncer import BINARY, pgbouncer
from tests.support.processes import Process, worker
from tests.support.sessions import advisory_locks
from tests.support.waiting import wait_until

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


@contextmanager
def reached(server: ServerUnderTest, admin: Connection) -> Iterator[str]:
    """The worker login's URL, through a proxy."""
    user = f"refold_pooled_{os.getpid()}"
    with pgbouncer(server, admin.info.dbname, user) as url:
        yield url.replace(f"//{server.user}@", f"//{user}@")


@pytest.fixture
def proxied(server: ServerUnderTest, admin: Connection, login: sql.Identifier) -> Iterator[str]:
    with reached(server, admin) as url:
        yield url


def with_settings(admin: Connection, login: sql.Identifier) -> None:
    """What the refusal tells one to do."""
    for name in ("TimeZone", "DateStyle", "search_path", "lc_numeric", "lc_monetary", "lc_time", "lock_timeout"):
        text = sql.SQL(SESSION[name]) if name == "search_path" else sql.Literal(SESSION[name])
        admin.execute(sql.SQL("ALTER ROLE {} SET {} = {}").format(login, sql.Identifier(name), text))
    admin.execute(sql.SQL("ALTER ROLE {} SET role = refold_worker").format(login))


def said(process: Process) -> str:
    """What a worker wrote until it was killed."""
    process.kill()
    assert process.stderr is not None
    return process.stderr.read()


def test_the_doctor_says_so(proxied: str, database_url: str) -> None:
    for url, verdict in ((proxied, "warn"), (database_url, "ok")):
        with psycopg.connect(url, autocommit=True) as conn:
            [check] = listens(url, conn)
        assert (check.verdict, "a proxy pools transactions" in check.found) == (verdict, url == proxied)


@pytest.mark.parametrize("drain", [True, False])
def test_a_login_without_settings_is_refused_with_the_remedy(
    proxied: str, server: ServerUnderTest, admin: Connection, login: sql.Identifier, drain: bool
) -> None:
    """SET would hold for whichever session the next transaction gets, or not."""
    with pytest.raises(DatabaseError, match="pools transactions") as refused:
        Worker(proxied, SHOP).run(drain=drain)
    statements = (refused.value.remedy or "").partition("use: ")[2]
    admin.execute(statements.encode())
    with pytest.raises(DatabaseError, match=r"its sessions have older values of .*DateStyle"):
        Worker(proxied, SHOP).run(drain=drain)
    with reached(server, admin) as url:
        Worker(url, SHOP).run(drain=True)
    # What somebody does to the database is as good as what the login lacks.
    admin.execute(f"ALTER DATABASE \"{admin.info.dbname}\" SET statement_timeout = '500ms'".encode())
    with pytest.raises(DatabaseError, match="pools transactions") as refused:
        Worker(proxied, SHOP).run(drain=drain)
    assert "SET statement_timeout = '0'" in (refused.value.remedy or "")


STARTS_WITH = """
    SELECT array_agg((name, setting) ORDER BY name) FILTER (WHERE setting IS DISTINCT FROM reset_val),
           current_user::text = session_user::text
    FROM pg_settings WHERE context IN ('user', 'superuser') AND name NOT IN ('application_name', 'client_encoding')
"""


@pytest.mark.slow
@pytest.mark.live("shop")
def test_nothing_that_a_command_sets_is_left_to_the_next_client(
    server: ServerUnderTest, database_url: str, admin: Connection, login: sql.Identifier, tmp_path: Path
) -> None:
    make_live(database_url)
    events_file = tmp_path / "events.jsonl"
    events_file.write_text("".join(json.dumps(event) + "\n" for event in events(30)))
    commands = (
        ("status",), ("reconcile",), ("query", "TABLE daily"), ("scrub",), ("deploy",), ("rebuild", "daily"),
        ("rollback", "daily"), ("recover", "--yes"), ("migrate",), ("doctor",), ("worker", "--drain"), ("incidents",),
        ("report",), ("rejected",), ("ingest", str(events_file)), ("deadletters", "list"),
    )  # fmt: skip
    for settings in (False, True):
        if settings:
            with_settings(admin, login)
        with reached(server, admin) as proxied:
            _leaves_nothing(proxied, commands, acts=settings)
        assert advisory_locks(admin) == 0


def _leaves_nothing(proxied: str, commands: Sequence[Sequence[str]], *, acts: bool) -> None:
    for command in commands:
        arguments = [*command, "--database-url", proxied]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code in (0, 1, 2), (command, done.output, done.exception)
        assert done.exception is None or isinstance(done.exception, SystemExit), command
        with psycopg.connect(proxied, autocommit=True) as a, psycopg.connect(proxied, autocommit=True) as b:
            for other in (a, b):
                left, own = other.execute(STARTS_WITH).fetchone() or (None, None)
                assert left is None, command
                assert own is not acts, command


@pytest.mark.parametrize("inherits", [True, False])
def test_a_producer_needs_no_settings(
    proxied: str, database_url: str, admin: Connection, login: sql.Identifier, inherits: bool
) -> None:
    """Many short sessions of producers are what such a proxy is for."""
    admin.execute(sql.SQL("GRANT refold_producer TO {}").format(login))
    if not inherits:
        admin.execute(sql.SQL("ALTER ROLE {} NOINHERIT").format(login))
        if admin.info.server_version >= 160000:
            admin.execute(sql.SQL("GRANT refold_producer TO {} WITH INHERIT FALSE").format(login))
        with pytest.raises(DatabaseError, match="pools transactions") as refused, Log(proxied) as log:
            log.append(events(3))
        admin.execute((refused.value.remedy or "").partition("use: ")[2].encode())
        admin.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s", (
            f"refold_pooled_{os.getpid()}",))  # fmt: skip
    with Log(proxied) as log:
        assert {receipt.answer.value for receipt in log.append(events(100))} == {"accepted"}
        assert {receipt.answer.value for receipt in log.append(events(100))} == {"duplicate"}


def test_what_needs_a_session_of_its_own_says_so(proxied: str, admin: Connection, login: sql.Identifier) -> None:
    with_settings(admin, login)
    with (
        connect_as(proxied, "refold_worker", autocommit=True) as conn,
        pytest.raises(DatabaseError, match="needs its own session, but a proxy pools transactions"),
    ):
        deploy(conn, SHOP, load_directory(SHOP), lambda progress: None)
    with pytest.raises(DatabaseError, match="needs its own session, but a proxy pools transactions"):
        migrate(proxied)


@pytest.mark.live("shop")
@pytest.mark.slow
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


@pytest.mark.live("shop")
@pytest.mark.slow
def test_duties_are_done_and_given_back(
    proxied: str, database_url: str, admin: Connection, login: sql.Identifier
) -> None:
    """Each of their transactions may run in another session; who has a duty is not told by one."""
    make_live(database_url)
    with_settings(admin, login)
    duties = [Duty(duty.name, 0.1, duty.run, duty.statement_timeout_s) for duty in DUTIES]
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
        ).fetchone() == ("0", SESSION["lock_timeout"])
