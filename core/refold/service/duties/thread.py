"""The duty thread: runs a worker's duties beside its pages, in a thread with its own connection.

An audit takes as long as the tables are large; on the pages' connection everything would stand still meanwhile. What
the two share is the database, and there they meet as two workers do: at the locks of the builds, which every page and
every heal takes before it writes. In the process they share nothing, see `DutyThread`.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psycopg

from refold.errors import OnStandby
from refold.postgres.connect import connect
from refold.postgres.lock_waits import LockWatch, Waits
from refold.postgres.proxy import proxied
from refold.postgres.session import DUTIES, DUTIES_ALONE
from refold.postgres.watchdog import Watchdog
from refold.service.duties.schedule import Duty, Schedule
from refold.store.builds.compiled import Compiler
from refold.store.schema.installed import check

log = logging.getLogger("refold.worker")

NAME = "refold duties"
"""Application name of its sessions."""
PAUSE = 0.05, 5.0
"""Longest pause before the first retry, and before any retry, seconds."""
END_S = 3.0
"""Seconds to wait for the thread at the end, before its connection is cut."""
CANCEL_S = 0.5
"""Seconds between two attempts to cancel the running duty."""


class DutyThread:
    """The thread that runs duties from `begin` to `end`.

    Its transforms are modules of its own, loaded once more: nobody expects two threads in a function of one event,
    least of all one that keeps something in its module. (What such a module imports is the process's.)

    Whatever fails is tried again, with a new connection; whether this database can be worked on at all is found out
    by the pages' connection.

    Args:
        url: a libpq URL; the login role must be allowed to act as refold_worker.
        projections: the folder of Python transforms, if there is one.
        duties: what to do; without any there is neither thread nor connection.
        frozen_after: seconds after which the server takes a session that stopped in a transaction for dead.
        waits: memory of waits for locks, shared with the connection of pages: both wait for the same sessions.
        name: of the thread, and application name of its sessions.
    """

    def __init__(
        self,
        url: str,
        projections: Path | None,
        duties: Sequence[Duty],
        *,
        frozen_after: float,
        waits: Waits | None = None,
        name: str = NAME,
    ) -> None:
        self._url = url
        self._projections = projections
        self._duties = duties
        self._name = name
        self._waits = waits
        self._settings = {**DUTIES, "idle_in_transaction_session_timeout": f"{frozen_after * 1000:.0f}ms"}
        self._pause = PAUSE[0]
        self._said: str | None = None
        self._told = threading.Event()
        self._thread: threading.Thread | None = None
        self._session: tuple[psycopg.Connection, Watchdog] | None = None

    def begin(self) -> None:
        """Starts, unless it has been started."""
        if self._thread is None and self._duties:
            self._told.clear()
            # A daemon: a function that never returns must not keep the process.
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Cancel the running duty, and wait until thread and connection are closed.

        A thread that is still in a Python function after `END_S` is left behind: its connection is cut, the server
        takes back what it had begun, and it ends when the function returns.
        """
        if self._thread is None:
            return
        thread, self._thread = self._thread, None
        self._told.set()
        until = time.monotonic() + END_S
        try:
            thread.join(CANCEL_S / 10)
            while thread.is_alive() and time.monotonic() < until:
                # Again and again: it may have been between two statements.
                self._cancel()
                thread.join(CANCEL_S)
        finally:
            if thread.is_alive() and self._session is not None:
                self._session[1].abort()
                thread.join(CANCEL_S)
        if thread.is_alive():
            log.warning("a duty did not stop, because its function does not return; its connection was closed")

    def _cancel(self) -> None:
        if self._session is not None:
            with suppress(psycopg.Error):
                self._session[0].cancel_safe(timeout=CANCEL_S)

    def _run(self) -> None:
        schedule = Schedule(self._duties, stopped=self._told.is_set)
        compiler = Compiler(self._projections, gently=True)
        while not self._told.is_set():
            try:
                self._attend(schedule, compiler)
            except BaseException as error:
                # Whatever it is, also SystemExit from somebody's function: nobody else would do the duties.
                if self._told.is_set():
                    return
                said = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
                # However long the server is away, it is told once; that it is a standby, by the pages' connection.
                if said != self._said and not isinstance(error, OnStandby):
                    self._said = said
                    log.warning("duties: retrying after %s", said)
                self._told.wait(random.uniform(0, self._pause))
                self._pause = min(self._pause * 2, PAUSE[1])

    def _attend(self, schedule: Schedule, compiler: Compiler) -> None:
        with (
            connect(
                self._url, "refold_worker", autocommit=True, application_name=self._name, settings=self._settings
            ) as conn,
            Watchdog(conn, self._url) as watchdog,
            LockWatch(conn, log.warning, self._waits),
        ):
            self._session = conn, watchdog
            if not proxied(conn):
                # There the next page may get this session.
                for name, value in DUTIES_ALONE.items():
                    conn.execute("SELECT set_config(%s, %s, false)", (name, value))
            while not self._told.wait(schedule.wait()):
                # A restore may come while this worker runs.
                check(conn)
                schedule.turn(conn, compiler)
                self._pause = PAUSE[0]
                self._said = None
