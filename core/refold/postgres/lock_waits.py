"""Waits for locks: a watch on a connection names the sessions that keep it waiting, and says how to end them.

A lock can be anybody's: a person at psql with an open transaction, another command, a prepared transaction. Postgres
tells who has it only while somebody waits, so a second connection looks while the first one is busy.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row

from refold.postgres.proxy import proxied
from refold.visible import visible

log = logging.getLogger("refold.locks")

NAME = "refold lock watch"
"""Application name of the second connection."""
BUSY_S = 0.5
"""Seconds that a connection is busy, in all, before the watch opens its own."""
AFTER_S = 1.0
"""Seconds of waiting for the same session after which the watch names it."""
AGAIN_S = 60.0
"""Seconds after which the watch names the same session again."""
FORGET_S = 10.0
"""Seconds without waiting for a session after which earlier waits for it no longer count."""
LOOK_S, CALM_LOOK_S = 0.1, 0.5
"""Seconds between two looks: at first and while the connection waits, and later."""
CALM_AFTER_S = 3.0
"""Seconds without a wait after which the looks become rarer."""
ASK_S = 5
"""Time limit for opening the second connection, seconds."""
_QUERY = 80
"""Most characters of a query that a message repeats."""

_WAITS = "SELECT FROM pg_stat_get_activity(%s) WHERE wait_event_type = 'Lock'"

# Who waits in the queue before us waits for somebody too: the last of the chain is named. 0 is a prepared transaction.
_BLOCKERS = """
WITH RECURSIVE chain (waiter, pid) AS (
    SELECT %(pid)s::integer, blocker FROM unnest(pg_blocking_pids(%(pid)s)) AS blocker
    UNION
    SELECT chain.pid, blocker FROM chain, unnest(pg_blocking_pids(nullif(chain.pid, 0))) AS blocker
)
SELECT DISTINCT nullif(c.pid, 0) AS pid, p.gid, coalesce(a.usename, p.owner)::text AS owner,
       coalesce(a.application_name, '') AS application, coalesce(a.xact_start, p.prepared) AS since,
       CASE WHEN a.query <> '<insufficient privilege>' THEN a.query ELSE '' END AS query,
       (SELECT min(l.relation::regclass::text) FROM pg_locks AS l
        WHERE l.pid = %(pid)s AND NOT l.granted AND l.relation IS NOT NULL) AS wanted
FROM chain AS c
LEFT JOIN pg_stat_activity AS a ON a.pid = c.pid
LEFT JOIN pg_locks AS w ON c.pid = 0 AND w.pid = c.waiter AND NOT w.granted
LEFT JOIN pg_locks AS h ON c.pid = 0 AND h.granted AND h.pid IS NULL
    AND (h.locktype, h.database, h.relation, h.page, h.tuple, h.transactionid, h.classid, h.objid, h.objsubid)
        IS NOT DISTINCT FROM
        (w.locktype, w.database, w.relation, w.page, w.tuple, w.transactionid, w.classid, w.objid, w.objsubid)
LEFT JOIN pg_locks AS own
    ON own.locktype = 'transactionid' AND own.pid IS NULL AND own.virtualtransaction = h.virtualtransaction
LEFT JOIN pg_prepared_xacts AS p ON p.transaction = own.transactionid
WHERE c.pid = 0 OR (c.pid <> pg_backend_pid() AND cardinality(pg_blocking_pids(c.pid)) = 0)
"""


@dataclass(frozen=True, slots=True)
class Blocker:
    """A session or prepared transaction that holds a lock which a session of refold waits for.

    Args:
        pid: process id of the session; None for a prepared transaction.
        gid: id of the prepared transaction.
        owner: its database role, if the login may see it.
        application: application name of the session.
        since: when its transaction began, or was prepared.
        query: its latest query, if the login may see it.
        wanted: table whose lock refold waits for; None for a lock on a row.
    """

    pid: int | None
    gid: str | None
    owner: str | None
    application: str | None
    since: object
    query: str | None
    wanted: str | None

    @property
    def name(self) -> str:
        """Return the pid or gid in words."""
        return f"prepared transaction {self.gid or '(unknown)'}" if self.pid is None else f"pid {self.pid}"

    @property
    def ending(self) -> str:
        """Return the statement that ends it."""
        if self.pid is None:
            gid = (self.gid or "GID").replace("'", "''")
            return f"COMMIT PREPARED '{gid}'; or ROLLBACK PREPARED '{gid}';"
        return f"SELECT pg_terminate_backend({self.pid});"

    def __str__(self) -> str:
        since = None if self.since is None else f"since {str(self.since).partition('.')[0].partition('+')[0]} UTC"
        about = ", ".join(one for one in (self.owner, self.application, since) if one)
        query = shortened(self.query or "")
        return visible(
            f"refold waits for a lock on {self.wanted or 'a row'}, which {self.name}{f' ({about})' if about else ''}"
            f" holds{f'; its latest query: {query}' if query else ''}. To end it: {self.ending}"
        )


def shortened(query: str) -> str:
    """Return a query in one line, cut after some characters. Pure."""
    text = " ".join(query.split())
    return text if len(text) <= _QUERY else text[: _QUERY - 1] + "…"


def blockers(conn: psycopg.Connection, pid: int) -> list[Blocker]:
    """Return those for whom a session waits, at the end of the chain; empty if it does not wait for a lock.

    Args:
        conn: in autocommit mode; acts as the login role, which alone may see other sessions.
        pid: process id of the waiting session.
    """
    if not conn.execute(_WAITS, (pid,)).rowcount:
        return []
    with conn.cursor(row_factory=class_row(Blocker)) as cursor:
        return cursor.execute(_BLOCKERS, {"pid": pid}).fetchall()


class Waits:
    """Adds up the time of waiting for each blocker, and decides what to tell, so that it is told once a minute.

    Several watches may share it.

    Args:
        after_s: seconds of waiting, within `FORGET_S` of each other, after which a blocker is told.
    """

    def __init__(self, after_s: float = AFTER_S) -> None:
        self._after = after_s
        self._waited: dict[str, float] = {}
        self._seen: dict[str, float] = {}
        self._told: dict[str, float] = {}
        self._lock = threading.Lock()

    def found(self, names: Sequence[str], now: float, seconds: float) -> list[str]:
        """Add time of waiting; return the names that are to be told now.

        Args:
            names: the blockers of this moment.
            now: this moment, seconds of a monotonic clock.
            seconds: time since the last look.
        """
        due = []
        with self._lock:
            for name in names:
                stale = now - self._seen.get(name, now) > FORGET_S
                self._waited[name] = seconds + (0.0 if stale else self._waited.get(name, 0.0))
                self._seen[name] = now
                told = self._told.get(name)
                if self._waited[name] >= self._after and (told is None or now - told >= AGAIN_S):
                    self._told[name] = now
                    due.append(name)
        return due


class LockWatch:
    """A thread that names those who keep a connection waiting for a lock; also a context manager.

    It ends with the connection. It opens a second connection only when the first has been busy for `BUSY_S`.
    Through a proxy that pools transactions it cannot know the session, and does nothing.

    Args:
        conn: connection to watch. The watch never uses it, and only reads its state.
        tell: receives each message.
        waits: memory of earlier waits, for a connection that follows another one.
    """

    def __init__(
        self,
        conn: psycopg.Connection,
        tell: Callable[[str], object] = log.warning,
        waits: Waits | None = None,
    ) -> None:
        self._conn = conn
        self._tell = tell
        self._waits = waits or Waits()
        self._ended = threading.Event()
        self._other: psycopg.Connection | None = None
        if not proxied(conn):
            self._pid = conn.info.backend_pid
            self._url = make_conninfo(conn.info.dsn, password=conn.info.password or None)
            threading.Thread(target=self._run, name=NAME, daemon=True).start()

    def close(self) -> None:
        """End the watch, and leave the connection open."""
        self._ended.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        busy, calm = 0.0, 0.0
        try:
            # Without a second connection there is nothing to tell; the first one says itself what is wrong.
            with suppress(psycopg.Error):
                while not self._ended.wait(pause := LOOK_S if calm < CALM_AFTER_S else CALM_LOOK_S):
                    if self._conn.closed:
                        return
                    if self._conn.info.transaction_status is not TransactionStatus.ACTIVE:
                        continue
                    busy, calm = busy + pause, calm + pause
                    if busy >= BUSY_S and self._look(pause):
                        calm = 0.0
        finally:
            if self._other is not None:
                self._other.close()

    def _look(self, seconds: float) -> bool:
        """Look once, and tell what is due; return whether the connection waits for a lock."""
        if self._other is None:
            self._other = psycopg.connect(self._url, autocommit=True, connect_timeout=ASK_S, application_name=NAME)
            self._other.execute(
                "SELECT set_config('statement_timeout', '5s', false), set_config('TimeZone', 'UTC', false)"
            )
        found = {one.name: one for one in blockers(self._other, self._pid)}
        for name in self._waits.found(list(found), time.monotonic(), seconds):
            self._tell(str(found[name]))
        return bool(found)
