"""Workers as processes: they share the work, are replaced when they die, and stop as they are told."""

from __future__ import annotations

import importlib
import os
import pkgutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from psycopg import sql

import refold.service.duties
from refold import append
from refold.errors import BuildError, NotInstalled
from refold.service.processes import BACKOFF
from refold.service.worker.pool import LOGGERS, Orders, run
from refold.store.builds.build import find
from tests.conftest import ServerUnderTest
from tests.support.law import deploy_project
from tests.support.sessions import pids
from tests.support.waiting import wait_until

Connection = psycopg.Connection[tuple[Any, ...]]

TOTALS = "SELECT action, count(*) AS events FROM events GROUP BY action"


@pytest.fixture
def project(tmp_path: Path, database_url: str) -> Path:
    """A folder with one metric, which is live."""
    (tmp_path / "totals.sql").write_text(TOTALS)
    deploy_project(database_url, tmp_path)
    return tmp_path


def _works(child: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(child.cmdline())
    except (psutil.ZombieProcess, psutil.NoSuchProcess):
        return False


class Running:
    """A worker command in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def children(self) -> list[psutil.Process]:
        """The pool's worker processes."""
        return [child for child in psutil.Process(self.process.pid).children() if _works(child)]

    def tell(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def says(self, text: str) -> None:
        """Waits for a line on stderr."""
        assert self.process.stderr is not None
        assert any(text in said for said in self.process.stderr)

    def end(self) -> tuple[int, str]:
        """Waits for the end: exit status and what it said."""
        _, said = self.process.communicate(timeout=30)
        return self.process.returncode, said


@contextmanager
def worker(url: str, folder: Path, *options: str) -> Iterator[Running]:
    command = [sys.executable, "-m", "refold", "worker", "--projections", str(folder), *options]
    environment = {**os.environ, "REFOLD_DATABASE_URL": url}
    # A group of its own, so that a signal for the group can be sent as a terminal does.
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    try:
        yield Running(process)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def append_actions(url: str, count: int, prefix: str = "e") -> None:
    with psycopg.connect(url) as conn:
        append(conn, [{"id": f"{prefix}{n}", "action": "a", "ts": n} for n in range(count)])


def counted(conn: Connection) -> int:
    row = conn.execute("SELECT coalesce(sum(events), 0)::integer FROM metrics.totals").fetchone()
    assert row is not None
    return int(row[0])


def workers(conn: Connection) -> int:
    return len(pids(conn, "refold worker"))


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
def test_drain_applies_everything_and_ends(project: Path, database_url: str, conn: Connection, processes: str) -> None:
    conn.autocommit = True
    append_actions(database_url, 500)
    with worker(database_url, project, "--drain", "--processes", processes) as running:
        status, said = running.end()
    assert status == 0, said
    assert counted(conn) == 500


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("processes", [1, 2])
def test_told_to_stop_it_ends_well(
    project: Path, database_url: str, conn: Connection, processes: int, number: signal.Signals
) -> None:
    conn.autocommit = True
    with worker(database_url, project, "--processes", str(processes)) as running:
        wait_until(lambda: workers(conn) == processes)
        append_actions(database_url, 10)
        wait_until(lambda: counted(conn) == 10)
        # As Ctrl-C does it, and some service managers: the whole group is told, and the parent tells its children.
        os.killpg(running.process.pid, number)
        status, said = running.end()
    assert status == 0, said
    assert "Traceback" not in said
    wait_until(lambda: workers(conn) == 0)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_told_to_stop_in_the_middle_of_a_duty(
    project: Path, database_url: str, conn: Connection, connect: Callable[..., Connection], processes: int
) -> None:
    """It is cancelled; nobody waits for the end of an audit."""
    conn.autocommit = True
    holder = connect()
    holder.execute("LOCK TABLE refold.duties IN ACCESS EXCLUSIVE MODE")
    with worker(database_url, project, "--processes", str(processes)) as running:
        wait_until(lambda: len(pids(conn, "refold duties", waiting=True)) == processes)
        running.tell()
        status, said = running.end()
        wait_until(lambda: pids(conn, "refold duties") == [])
    assert status == 0, said
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced(project: Path, database_url: str, conn: Connection) -> None:
    conn.autocommit = True
    with worker(database_url, project, "--processes", "2") as running:
        wait_until(lambda: workers(conn) == 2)
        before = {child.pid for child in running.children()}
        for child in running.children():
            child.kill()
        wait_until(lambda: workers(conn) == 2 and not before & {child.pid for child in running.children()})
        append_actions(database_url, 10)
        wait_until(lambda: counted(conn) == 10)
        running.tell()
        status, said = running.end()
    assert status == 0
    assert said.count("ended by signal 9") == 2


@pytest.mark.slow
def test_workers_end_with_a_parent_that_was_killed(project: Path, database_url: str, conn: Connection) -> None:
    conn.autocommit = True
    with worker(database_url, project, "--processes", "2") as running:
        wait_until(lambda: workers(conn) == 2)
        running.tell(signal.SIGKILL)
        running.end()
        wait_until(lambda: workers(conn) == 0 and pids(conn, "refold duties") == [])


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_told_twice_it_ends_at_once(
    project: Path,
    database_url: str,
    conn: Connection,
    connect: Callable[..., Connection],
    processes: int,
) -> None:
    conn.autocommit = True
    (build,) = find(conn)
    holder = connect()
    holder.execute(
        sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier("refold_builds", build.table_name))
    )
    append_actions(database_url, 10)
    with worker(database_url, project, "--processes", str(processes)) as running:
        wait_until(lambda: pids(conn, "refold worker", waiting=True))
        running.tell()
        running.says("stopping after the current page")
        assert running.process.poll() is None
        running.tell()
        status, said = running.end()
    assert status == 130, said
    holder.rollback()
    wait_until(lambda: workers(conn) == 0)
    assert counted(conn) == 0


def test_told_to_stop_while_the_database_is_away(
    project: Path, database_url: str, conn: Connection, server: ServerUnderTest
) -> None:
    name = sql.Identifier(conn.info.dbname)
    with (
        psycopg.connect(server.url_of(server.maintenance_dbname), autocommit=True) as admin,
        worker(database_url, project) as running,
    ):
        conn.autocommit = True
        wait_until(lambda: workers(conn) == 1)
        try:
            admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'refold worker' AND datname = %s",
                (conn.info.dbname,),
            )
            running.says("retrying after")
            running.tell()
            status, said = running.end()
        finally:
            admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
    assert status == 0, said


def test_a_database_without_refold_is_refused_at_once(server: ServerUnderTest, tmp_path: Path) -> None:
    with pytest.raises(NotInstalled, match="not installed"):
        run(Orders(server.url_of(server.maintenance_dbname), tmp_path), processes=2)


@pytest.mark.slow
def test_draining_is_given_up_when_workers_keep_dying(
    project: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refold.service.processes.BACKOFF", (0.0, BACKOFF[1]))
    monkeypatch.setattr("refold.service.processes.GIVE_UP", 2)
    monkeypatch.setenv("REFOLD_CRASH_AT", "rows")
    append_actions(database_url, 10)
    with pytest.raises(BuildError, match="before all events were applied"):
        run(Orders(database_url, project, drain=True), processes=2)
    monkeypatch.delenv("REFOLD_CRASH_AT")
    run(Orders(database_url, project, drain=True), processes=2)
    with psycopg.connect(database_url) as after:
        assert counted(after) == 10


def test_signals_are_as_before_when_it_ends(project: Path, database_url: str) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    run(Orders(database_url, project, drain=True))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_worker_says_whatever_a_duty_says() -> None:
    duties = {
        name
        for module in pkgutil.iter_modules(refold.service.duties.__path__, "refold.service.duties.")
        if (found := getattr(importlib.import_module(module.name), "log", None)) is not None
        for name in [found.name]
    }
    assert "refold.archive" in duties
    assert duties - set(LOGGERS) == {"refold.openlineage"}  # It only warns.
