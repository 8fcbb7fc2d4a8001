"""The sleep of a worker until new events arrive, without missed notifications and without a NOTIFY for every commit.

A worker that goes to sleep takes a *shared session* advisory lock; the trigger on a stream (sql/functions/
notify_sleepers.sql) tries that lock and notifies only when somebody sleeps. Polling stays underneath as the truth.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence

import psycopg

from refold.model.stream.cursor import Snapshot
from refold.postgres.rows import one_row
from refold.service.worker.missed_notifications import GRACE, Missed, close_incident, first_missed, open_incident

log = logging.getLogger("refold.worker")

KEY = 8246178264892741632
"""Key of the lock in `sql/functions/sleepers_lock.sql`, which a login without a role may not call."""
CHANNEL = "refold"
POLL = 1.0
"""Seconds between two looks while no notification arrives."""
SETTLE = 0.25
"""Longest wait of a sleeper for transactions that were open when it marked itself asleep, seconds."""
TICK = 0.005
"""Polling interval during that wait, seconds."""
OBEY = 0.25
"""Seconds between two checks of a sleeper for a stop."""

# The key is the same for everybody who may connect. Whoever holds it exclusively keeps workers from marking themselves
# asleep, and they poll; whoever holds it shared is taken for a sleeper, and each append notifies. Neither does harm;
# both are told (here, and by `refold doctor`).
_HOLDERS = """
SELECT l.pid, coalesce(a.usename::text, '?'), coalesce(a.application_name, ''), l.mode = 'ExclusiveLock'
FROM pg_locks AS l
LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND (l.classid::bigint << 32) | l.objid::bigint = %s
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY l.pid
"""


def holders(conn: psycopg.Connection) -> list[tuple[int, str, str, bool]]:
    """Return the sessions that hold the sleepers' lock: pid, user, application, and whether exclusively."""
    return [(pid, user, name, alone) for pid, user, name, alone in conn.execute(_HOLDERS, (KEY,)).fetchall()]


class Listener:
    """The listener that lets one worker sleep until there is work.

    Args:
        conn: the worker's connection, in autocommit mode.
        poll: polling interval while no notification arrives, seconds.
    """

    def __init__(self, conn: psycopg.Connection, *, poll: float = POLL) -> None:
        self._conn = conn
        self._poll = poll
        self.works = False
        self._up = False
        self._settled = False
        self._asleep_txid: int | None = None
        self._missed: tuple[Missed, float] | None = None
        self._lost = False
        self._refused: float | None = None
        self._told = False

    def self_test(self, other: psycopg.Connection, *, seconds: float = 1.0) -> bool:
        """Return whether a NOTIFY arrives here; behind a transaction-pooling proxy it never does.

        It runs before the worker first marks itself asleep. Without it the worker polls.

        Args:
            other: a second connection to the same database, in autocommit mode.
            seconds: how long to wait.
        """
        self._conn.execute(f"LISTEN {CHANNEL}")
        other.execute("SELECT pg_notify(%s, 'self-test')", (CHANNEL,))
        self.works = any(True for _ in self._conn.notifies(timeout=seconds, stop_after=1))
        return self.works

    def sleep(self, work: Callable[[], bool], stopped: Callable[[], bool], *, at_most: float = math.inf) -> None:
        """Sleep until there is work, a notification, or the next poll; stay marked asleep until `mark_awake`.

        The rule that misses nothing: mark asleep, note which transactions are in progress, look once more;
        while one of them is still open, keep looking briefly (it may have tried the lock before
        that); only then sleep.

        Args:
            work: returns whether there is work.
            stopped: returns whether the worker must stop.
            at_most: longest sleep, seconds.
        """
        seconds = min(self._poll, at_most)
        self._judge()
        if not self.works:
            self._doze(seconds, stopped)
        elif self._up or self._mark_asleep():
            if self._settled or self._settle(work, stopped):
                if self._listen(seconds, stopped):
                    self._notified()
                else:
                    self._note_missed()
        elif self._kept_from_it():
            self._doze(seconds, stopped)
        else:
            self._doze(TICK, stopped)

    def mark_awake(self) -> None:
        """Release the sleepers' lock, so that producers send no notification for this worker."""
        if self._up:
            self._conn.execute("SELECT pg_advisory_unlock_shared(refold.sleepers_lock())")
            self._up = self._settled = False
            self._asleep_txid = None

    def _mark_asleep(self) -> bool:
        # `try`: a producer holds the lock for the moment in which it tries it.
        row = self._conn.execute("SELECT pg_try_advisory_lock_shared(refold.sleepers_lock())").fetchone()
        self._up = row is not None and bool(row[0])
        if self._up:
            self._refused, self._told = None, False
        return self._up

    def _kept_from_it(self) -> bool:
        """Return whether another session holds the lock for longer than a producer does; then only polling helps."""
        now = time.monotonic()
        self._refused = self._refused or now
        if now - self._refused < SETTLE:
            return False
        if not self._told:
            self._told = True
            who = [f"pid {pid} ({user}, {name})" for pid, user, name, alone in holders(self._conn) if alone]
            log.warning(
                "another session holds the sleepers' lock, so no notification wakes this worker: %s; polling instead",
                ", ".join(who) or "it has ended meanwhile",
            )
        return True

    def _settle(self, work: Callable[[], bool], stopped: Callable[[], bool]) -> bool:
        """Poll until every transaction has ended that may have missed the mark; return False when there is work."""
        # A txid of its own: a snapshot does not list those that run above the latest one that has ended.
        row = one_row(self._conn, "SELECT pg_current_snapshot()::text, pg_current_xact_id()::text")
        then, own = Snapshot.parse(row[0]), int(row[1])
        self._asleep_txid = own
        before = (*then.xip, *range(then.xmax, own))
        until = time.monotonic() + SETTLE
        while True:
            # Asked before looking: what ends in between has been looked for.
            open_still = self._any_open(before)
            if work() or stopped():
                return False
            if not open_still or time.monotonic() >= until:
                self._settled = True
                return True
            time.sleep(TICK)

    def _listen(self, seconds: float, stopped: Callable[[], bool]) -> bool:
        """Return whether a notification arrives within a time."""
        until = time.monotonic() + seconds
        while not stopped():
            left = until - time.monotonic()
            if any(True for _ in self._conn.notifies(timeout=max(0.0, min(left, OBEY)), stop_after=1)):
                return True
            if left <= OBEY:
                break
        return False

    def _notified(self) -> None:
        """Record a notification; it may belong to any event that is read from now on."""
        self._asleep_txid = self._missed = None
        if self._lost:
            self._lost = False
            close_incident(self._conn)

    def _note_missed(self) -> None:
        """Remember an event whose notification is missing, if any."""
        if self._asleep_txid is not None and self._missed is None:
            missed = first_missed(self._conn, self._asleep_txid)
            if missed is not None:
                self._missed = missed, time.monotonic()

    def _judge(self) -> None:
        """Open an incident when a missing notification can no longer arrive."""
        if self._missed is None or time.monotonic() < self._missed[1] + GRACE:
            return
        missed, _ = self._missed
        self._missed = None
        if any(True for _ in self._conn.notifies(timeout=0, stop_after=1)):
            self._notified()
        else:
            open_incident(self._conn, missed)
            self._lost = True

    def _any_open(self, txids: Sequence[int]) -> bool:
        if not txids:
            return False
        row = one_row(self._conn, "SELECT pg_current_snapshot()::text")
        now = Snapshot.parse(row[0])
        return any(not now.visible(txid) for txid in txids)

    def _doze(self, seconds: float, stopped: Callable[[], bool]) -> None:
        """Wait without being marked asleep, in short naps, so that a stop takes effect soon."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not stopped():
            time.sleep(min(0.05, max(0.0, until - time.monotonic())))
