"""The stage of the demo: a throwaway PostgreSQL server with refold, and worker processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from refold.demo.wait import wait_for
from refold.embedded import EmbeddedServer
from refold.embedded.postmaster import Postmaster
from refold.engine.deployment.deploy import deploy
from refold.engine.publish.analyst_views import apply_analyst_views
from refold.errors import RefoldError
from refold.model.projection.definition import load_directory
from refold.postgres.connect import Role, connect
from refold.store.builds.build import Build
from refold.store.schema.migrate import migrate
from refold.store.schema.resources import projections_dir, sql_dir

STOP_S = 10.0
"""Seconds that a worker gets to finish its last page."""
_NOT_FOR_WORKERS = ("REFOLD_CRASH_AT", "REFOLD_DATABASE_URL")


@dataclass(frozen=True, slots=True)
class Hand:
    """A worker process.

    Args:
        process: the operating-system process of `refold worker`.
        login: the database role that only this worker uses, which identifies its sessions.
    """

    process: subprocess.Popen[bytes]
    login: str

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self.process.pid


class Stage:
    """A server in its own directory, with its worker processes. `close` removes all of them.

    Args:
        keep: whether the server stays after the demo, so that its files are synced to disk.
    """

    def __init__(self, *, keep: bool) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="refold-demo-"))
        # If the demo runs as root, the server runs as another user, who must be able to enter the directory.
        self.home.chmod(0o711)
        self.projections = projections_dir()
        self.hands: list[Hand] = []
        self._hired = 0
        self._keep = keep
        self._server: EmbeddedServer | None = None
        self._connections: list[psycopg.Connection] = []

    def start(self) -> str:
        """Start the server, and return its version."""
        self._server = EmbeddedServer.start(self.home / "postgres", keep=self._keep, delete=not self._keep)
        with psycopg.connect(self.url) as conn:
            return (conn.info.parameter_status("server_version") or "").split(" ")[0]

    @property
    def url(self) -> str:
        """Return the libpq URL of the superuser."""
        assert self._server is not None
        return self._server.url

    def install(self) -> None:
        """Install refold's schema and roles."""
        migrate(self.url)

    def connect(self, role: Role | None, name: str = "refold demo") -> psycopg.Connection:
        """Open and return a connection in autocommit mode, which the stage closes."""
        conn = connect(self.url, role, autocommit=True, application_name=name)
        self._connections.append(conn)
        return conn

    def deploy(self) -> list[Build]:
        """Deploy the starter projections and the analysts' views on them; return the builds."""
        with connect(self.url, "refold_worker", autocommit=True) as conn:
            builds = deploy(conn, self.projections, load_directory(self.projections), lambda progress: None)
            apply_analyst_views(conn, sql_dir() / "views")
        return builds

    def hire(self, number: int) -> list[Hand]:
        """Start a number of worker processes, and return them."""
        hands = [self._hire() for _ in range(number)]
        self.hands += hands
        return hands

    def _hire(self) -> Hand:
        self._hired += 1
        login = f"worker_{self._hired}"
        with psycopg.connect(self.url, autocommit=True) as conn:
            conn.execute(sql.SQL("CREATE ROLE {} LOGIN IN ROLE refold_worker").format(sql.Identifier(login)))
        url = make_conninfo(self.url, user=login)
        # -P: a folder `refold` in the current directory must not be taken for this package.
        command = [sys.executable, "-P", "-m", "refold", "worker"]
        command += ["--database-url", url, "--projections", str(self.projections)]
        with (self.home / f"{login}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                env={name: value for name, value in os.environ.items() if name not in _NOT_FOR_WORKERS},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C must only reach the demo, which then stops its workers.
                start_new_session=True,
            )
        return Hand(process, login)

    def wait_for_hands(self, conn: psycopg.Connection) -> None:
        """Wait until every worker process is connected."""
        logins = [hand.login for hand in self.hands]

        def connected() -> bool:
            self.insist_on_hands()
            row = conn.execute(
                "SELECT count(DISTINCT usename) FROM pg_stat_activity"
                " WHERE application_name = 'refold worker' AND usename = ANY (%s)",
                (logins,),
            ).fetchone()
            return row == (len(logins),)

        wait_for(connected, "the worker processes connect")

    def insist_on_hands(self) -> None:
        """Refuse to wait for a worker process that has ended.

        Raises:
            RefoldError: a worker process has ended.
        """
        for hand in self.hands:
            if hand.process.poll() is not None:
                raise RefoldError(f"worker {hand.pid} ended by itself: {self.log_of(hand)}")

    def log_of(self, hand: Hand) -> str:
        """Return the last lines of a worker's log."""
        text = (self.home / f"{hand.login}.log").read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-15:])

    def dismiss(self) -> None:
        """Stop the worker processes; kill those that do not end in time."""
        for hand in self.hands:
            hand.process.send_signal(signal.SIGCONT)
            hand.process.terminate()
        for hand in self.hands:
            try:
                hand.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                hand.process.kill()
                hand.process.wait()
        self.hands.clear()

    def leave(self) -> None:
        """Close everything but the server, which stays."""
        self._disconnect()
        self.dismiss()
        for log in self.home.glob("*.log"):
            log.unlink()

    def close(self) -> None:
        """End every process and remove every file of the demo."""
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._disconnect()
            for hand in self.hands:
                hand.process.kill()
            self.dismiss()
            if self._server is not None:
                self._server.close()
            self._end_postmaster()
            shutil.rmtree(self.home, ignore_errors=True)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _disconnect(self) -> None:
        for conn in self._connections:
            conn.close()
        self._connections.clear()

    def _end_postmaster(self) -> None:
        """End a server that `EmbeddedServer.close` leaves running: a kept one, or one whose start was interrupted."""
        data = self.home / "postgres" / "data"
        postmaster = Postmaster.find(data)
        if postmaster is not None:
            os.kill(postmaster.pid, signal.SIGQUIT)
            wait_for(lambda: Postmaster.find(data) is None, "the server ends")
