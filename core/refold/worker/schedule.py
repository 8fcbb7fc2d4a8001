"""Duties: what workers do besides pages, so that nobody has to look after them.

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

import psycopg

from refold.builds.upkeeper import Upkeepers
from refold.pooling import proxied

log = logging.getLogger("refold.worker")

ABANDONED_AFTER = 600.0
"""Seconds after which a duty that has not ended is taken for lost, whatever became of its session."""

NEARLY = 0.95
"""Part of a duty's interval after which it is due. Its row was written a little later than the worker's clock was
read: without that, the worker would come a moment too early, and again only after a whole interval."""


@dataclass(frozen=True, slots=True)
class Duty:
    """Something that one worker of a database does every now and then.

    Args:
        name: its name in `refold.duties`, and in the incidents that it opens.
        every: seconds from one start to the next.
        run: does it, over a worker's connection in autocommit mode; it opens the transactions it needs.
        patience: seconds that one of its statements may take: meanwhile the worker applies nothing.
    """

    name: str
    every: float
    run: Callable[[psycopg.Connection, Upkeepers], None]
    patience: float = 30.0


class Schedule:
    """Runs duties for one worker, at most one at a time.

    Args:
        duties: which.
        clock: seconds that only grow.
    """

    def __init__(self, duties: Sequence[Duty], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = {duty: clock() for duty in duties}

    def wait(self) -> float:
        """Seconds until the next duty is due; infinite without duties."""
        return max(0.0, min(self._due.values(), default=math.inf) - self._clock())

    def turn(self, conn: psycopg.Connection, upkeepers: Upkeepers) -> None:
        """Runs the duty that has been due longest, unless another worker has seen to it. Its failure is its own.

        Args:
            conn: a worker's connection, in autocommit mode.
            upkeepers: the SQL of the builds.
        """
        if self.wait() > 0:
            return
        duty = min(self._due, key=lambda one: self._due[one])
        self._due[duty] = self._clock() + duty.every
        try:
            if _claim(conn, duty):
                _run(conn, duty, upkeepers)
        except Exception as error:
            # A broken connection shows at the worker's next statement.
            log.warning("the duty %s failed: %s", duty.name, _told(error))


def _claim(conn: psycopg.Connection, duty: Duty) -> bool:
    """Takes a duty, if it is due in the whole database and nobody is at it."""
    # One statement: whoever waits for the row looks at the conditions again when it gets it.
    taken = conn.execute(
        """
        INSERT INTO refold.duties AS d (name) VALUES (%s)
        ON CONFLICT (name) DO UPDATE SET started_at = clock_timestamp(), ended_at = NULL, pid = pg_backend_pid()
        WHERE d.started_at <= clock_timestamp() - make_interval(secs => %s::double precision)
          AND (d.ended_at IS NOT NULL
               OR d.started_at <= clock_timestamp() - make_interval(secs => %s::double precision)
               OR NOT EXISTS (SELECT FROM pg_stat_activity AS a
                              WHERE a.pid = d.pid AND a.datname = current_database()))
        """,
        (duty.name, duty.every * NEARLY, max(ABANDONED_AFTER, 2 * duty.every)),
    )
    return taken.rowcount == 1


def _run(conn: psycopg.Connection, duty: Duty, upkeepers: Upkeepers) -> None:
    failure: str | None = None
    try:
        with _patience(conn, duty.patience):
            duty.run(conn, upkeepers)
    except Exception as error:
        failure = _told(error)
        raise
    finally:
        if not conn.closed:
            conn.execute(
                """
                UPDATE refold.duties
                SET ended_at = clock_timestamp(), error = %s,
                    failures = CASE WHEN %s::text IS NULL THEN 0 ELSE failures + 1 END
                WHERE name = %s AND pid = pg_backend_pid()
                """,
                (failure, failure, duty.name),
            )


@contextmanager
def _patience(conn: psycopg.Connection, seconds: float) -> Iterator[None]:
    """Bounds each statement of the session, and its waits for locks, for the time being."""
    if proxied(conn):
        # The settings would stay with a session that somebody else gets.
        yield
        return
    settings = {"statement_timeout": f"{seconds * 1000:.0f}ms", "lock_timeout": "1s"}
    query = "SELECT set_config(name, setting, false) FROM unnest(%s::text[], %s::text[]) AS s (name, setting)"
    names = list(settings)
    row = conn.execute(
        "SELECT current_setting('statement_timeout'), current_setting('lock_timeout')",
    ).fetchone()
    assert row is not None
    conn.execute(query, (names, list(settings.values())))
    try:
        yield
    finally:
        if not conn.closed:
            conn.execute(query, (names, list(row)))


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
