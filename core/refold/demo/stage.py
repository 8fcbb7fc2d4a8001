"""Where the demo plays: a throwaway PostgreSQL with refold in it, and worker processes beside it."""

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
"""Seconds that a worker has for its last page."""
_NOT_FOR_WORKERS = ("REFOLD_CRASH_AT", "REFOLD_DATABASE_URL")


@dataclass(frozen=True, slots=True)
class Hand:
    """A worker process.

    Args:
        process: `refold worker`, as an operating-system process of its own.
        login: the database role that only this worker logs in as, so that its sessions can be told apart.
    """

    process: subprocess.Popen[bytes]
    login: str

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid


class Stage:
    """A server in a directory of its own, and what runs on it. `close` removes every trace.

    Args:
        keep: the server is to stay, so its files are synced to disk.
    """

    def __init__(self, *, keep: bool) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="refold-demo-"))
        # It is ours. For root, the server runs as somebody else, who has to pass through.
        self.home.chmod(0o711)
        self.projections = projections_dir()
        self.hands: list[Hand] = []
        self._hired = 0
        self._keep = keep
        self._server: EmbeddedServer | None = None
        self._connections: list[psycopg.Connection] = []

    def start(self) -> str:
        """Starts the server; answers its version."""
        self._server = EmbeddedServer.start(self.home / "postgres", keep=self._keep, delete=not self._keep)
        with psycopg.connect(self.url) as conn:
            return (conn.info.parameter_status("server_version") or "").split(" ")[0]

    @property
    def url(self) -> str:
        """The libpq URL of the superuser."""
        assert self._server is not None
        return self._server.url

    def install(self) -> None:
        """Makes refold's schema and roles."""
        migrate(self.url)

    def connect(self, role: Role | None, name: str = "refold demo") -> psycopg.Connection:
        """A connection in autocommit mode, closed with the stage."""
        conn = connect(self.url, role, autocommit=True, application_name=name)
        self._connections.append(conn)
        return conn

    def deploy(self) -> list[Build]:
        """Makes the projections that come with refold live, and the analysts' views on them."""
        with connect(self.url, "refold_worker", autocommit=True) as conn:
            builds = deploy(conn, self.projections, load_directory(self.projections), lambda progress: None)
            apply_analyst_views(conn, sql_dir() / "views")
        return builds

    def hire(self, number: int) -> list[Hand]:
        """Starts worker processes."""
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
                # Ctrl-C is for the demo, which then stops its workers.
                start_new_session=True,
            )
        return Hand(process, login)

    def wait_for_hands(self, conn: psycopg.Connection) -> None:
        """Waits until every worker process is connected."""
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
        """Checks that the worker processes live: nothing is waited for that will never come.

        Raises:
            RefoldError: one has ended.
        """
        for hand in self.hands:
            if hand.process.poll() is not None:
                raise RefoldError(f"worker {hand.pid} ended by itself: {self.log_of(hand)}")

    def log_of(self, hand: Hand) -> str:
        """The end of what a worker has written."""
        text = (self.home / f"{hand.login}.log").read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-15:])

    def dismiss(self) -> None:
        """Stops the worker processes; those that do not obey are killed."""
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
        """Closes everything but the server, which stays."""
        self._disconnect()
        self.dismiss()
        for log in self.home.glob("*.log"):
            log.unlink()

    def close(self) -> None:
        """Ends every process and removes every file of the demo."""
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
        """Ends a server that `EmbeddedServer.close` leaves: one that is kept, or whose start was interrupted."""
        data = self.home / "postgres" / "data"
        postmaster = Postmaster.find(data)
        if postmaster is not None:
            os.kill(postmaster.pid, signal.SIGQUIT)
            wait_for(lambda: Postmaster.find(data) is None, "the server ends")
