"""Duties: the background work of workers (maintenance services), and its schedule.

A duty is due every so many seconds; over all workers of a database one at a time runs it, and not more often than
that. The row in `refold.duties` decides, so that there is no leader to lose. (Oban's and River's maintenance
services elect one; here any worker will do.)
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import psycopg

from refold.postgres.lock_waits import AGAIN_S
from refold.postgres.proxy import proxied
from refold.store.builds.compiled import Compiler

log = logging.getLogger("refold.worker")

ABANDONED_AFTER = 600.0
"""Seconds after which a duty that has not ended counts as lost."""

NEARLY = 0.95
"""Part of a duty's interval after which it is due. Its row was written a little later than the worker's clock was
read: without that, the worker would come a moment too early, and again only after a whole interval."""


@dataclass(frozen=True, slots=True)
class Duty:
    """A periodic task that one worker of a database runs at a time.

    Args:
        name: its name in `refold.duties`, and in the incidents that it opens.
        every: seconds from one start to the next.
        run: runs the task, over a connection in autocommit mode that acts as refold_worker; it opens the transactions
            it needs. Pages of all builds are applied meanwhile, in this process and in others.
        statement_timeout_s: time limit of each statement, seconds; meanwhile this worker runs no other duty.
    """

    name: str
    every: float
    run: Callable[[psycopg.Connection, Compiler], None]
    statement_timeout_s: float = 30.0


class Schedule:
    """The schedule that runs duties over one connection, one at a time.

    Args:
        duties: duties to run.
        clock: monotonic seconds.
        stopped: returns whether the running duty is cancelled because the worker stops.
    """

    def __init__(
        self,
        duties: Sequence[Duty],
        clock: Callable[[], float] = time.monotonic,
        *,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._clock = clock
        self._stopped = stopped
        self._due = {duty: clock() for duty in duties}
        self._locked_out_at: float | None = None

    def wait(self) -> float:
        """Return the seconds until the next duty is due; infinite without duties."""
        return max(0.0, min(self._due.values(), default=math.inf) - self._clock())

    def turn(self, conn: psycopg.Connection, compiler: Compiler) -> None:
        """Run the duty that has been due longest, unless another worker ran it; its failure affects no other.

        Args:
            conn: acts as refold_worker, in autocommit mode.
            compiler: the SQL of the builds.

        Raises:
            Exception: the duty's error, if it broke the connection, or if the duty was cancelled because the worker
                stops.
        """
        if self.wait() > 0:
            return
        duty = min(self._due, key=lambda one: self._due[one])
        due = self._clock() + duty.every
        try:
            claim = _claim(conn, duty)
            # Whatever it does, even if it costs the connection each time, the others have their turn.
            self._due[duty] = due
            if claim is not None:
                self._run(conn, duty, claim, compiler)
        except (Exception, SystemExit) as error:
            if self._stopped():
                raise
            if not self._repeated(error):
                log.warning("duty %s failed: %s", duty.name, _told(error))
            if conn.closed:
                raise
            self._due[duty] = due

    def _repeated(self, error: BaseException) -> bool:
        """Return whether it is another lock that was not to be had, within a minute: every duty meets the same one."""
        if not isinstance(error, psycopg.errors.LockNotAvailable):
            return False
        now, before = self._clock(), self._locked_out_at
        if before is not None and now - before < AGAIN_S:
            return True
        self._locked_out_at = now
        return False

    def _run(self, conn: psycopg.Connection, duty: Duty, claim: datetime, compiler: Compiler) -> None:
        failure: str | None = None
        try:
            with _statement_timeout(conn, duty.statement_timeout_s):
                duty.run(conn, compiler)
        except BaseException as error:
            failure = _told(error)
            raise
        finally:
            if not conn.closed:
                _end(conn, duty, claim, failure, cancelled=failure is not None and self._stopped())


def _claim(conn: psycopg.Connection, duty: Duty) -> datetime | None:
    """Claim a duty if it is due and not running anywhere; return the claim time."""
    # One statement: whoever waits for the row looks at the conditions again when it gets it. A start that lies in the
    # future was written by a clock that was ahead: it is as old as it is far, or nobody would ever be due again.
    row = conn.execute(
        """
        INSERT INTO refold.duties AS d (name) VALUES (%s)
        ON CONFLICT (name) DO UPDATE SET started_at = clock_timestamp(), ended_at = NULL, pid = pg_backend_pid()
        WHERE abs(extract(epoch FROM clock_timestamp() - d.started_at)) >= %s::double precision
          AND (d.ended_at IS NOT NULL
               OR abs(extract(epoch FROM clock_timestamp() - d.started_at)) >= %s::double precision
               OR NOT EXISTS (SELECT FROM pg_stat_activity AS a
                              WHERE a.pid = d.pid AND a.datname = current_database()))
        RETURNING d.started_at
        """,
        (duty.name, duty.every * NEARLY, max(ABANDONED_AFTER, 2 * duty.every)),
    ).fetchone()
    return None if row is None else row[0]


def _end(conn: psycopg.Connection, duty: Duty, claim: datetime, failure: str | None, *, cancelled: bool) -> None:
    """Release a duty, unless another worker has claimed it since; a cancelled duty keeps its last error."""
    # Not by the pid: behind a proxy that pools transactions this may be another session.
    conn.execute(
        """
        UPDATE refold.duties
        SET ended_at = clock_timestamp(),
            error = CASE WHEN %(cancelled)s THEN error ELSE %(failure)s::text END,
            failures = CASE WHEN %(cancelled)s THEN failures WHEN %(failure)s::text IS NULL THEN 0 ELSE failures + 1 END
        WHERE name = %(name)s AND started_at = %(claim)s
        """,
        {"cancelled": cancelled, "failure": failure, "name": duty.name, "claim": claim},
    )


@contextmanager
def _statement_timeout(conn: psycopg.Connection, seconds: float) -> Iterator[None]:
    """Set the session's statement_timeout inside this context."""
    if proxied(conn):
        # The setting would stay with a session that somebody else gets.
        yield
        return
    conn.execute("SELECT set_config('statement_timeout', %s, false)", (f"{seconds * 1000:.0f}ms",))
    try:
        yield
    finally:
        if not conn.closed:
            conn.execute("RESET statement_timeout")


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
