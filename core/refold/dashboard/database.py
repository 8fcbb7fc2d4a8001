"""The dashboard's connections: a few for each role, and answers that all tabs share for a second.

What a page reads, it reads as refold_observer, who may see no event, key or error text. For who has a token for
evidence it reads as refold_inspector; rows of metrics as refold_analyst; and only an action acts as refold_worker.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import psycopg

from refold.errors import DatabaseError, RefoldError
from refold.postgres.connect import Role, connect

T = TypeVar("T")

NAME = "refold dashboard"
"""Name of its sessions in pg_stat_activity."""
TOGETHER = 2
"""Most sessions of a role."""
PATIENCE_S = 5.0
"""Seconds that a request waits for a session of its role, and that a statement of a page may take."""
ANALYST_S = 2.0
"""Seconds that a statement on a metric's own view may take."""

_READS = {"default_transaction_read_only": "on", "jit": "off"}
SETTINGS: dict[Role, dict[str, str]] = {
    "refold_observer": {**_READS, "statement_timeout": f"{PATIENCE_S:.0f}s", "lock_timeout": "2s"},
    "refold_inspector": {**_READS, "statement_timeout": f"{PATIENCE_S:.0f}s", "lock_timeout": "2s"},
    "refold_analyst": {**_READS, "statement_timeout": f"{ANALYST_S:.0f}s", "lock_timeout": "1s"},
    "refold_worker": {"lock_timeout": "10s", "jit": "off"},
}


class TooSlow(RefoldError):
    """A statement took longer than a page waits."""


class Away(DatabaseError):
    """The database does not answer."""


@dataclass(slots=True)
class _Role:
    """The sessions of a role."""

    free: list[psycopg.Connection] = field(default_factory=list)
    places: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(TOGETHER))


class Database:
    """The database that the pages read.

    Args:
        url: libpq URL; the login must be allowed to act as refold_observer.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._roles = {role: _Role() for role in SETTINGS}
        self._explaining = _Role()
        self._patient = _Role(places=threading.BoundedSemaphore(1))

    def ask(self, role: Role, question: Callable[[psycopg.Connection], T]) -> T:
        """Return the answer to a question that changes nothing. It is asked again if its session has meanwhile ended.

        Args:
            role: the role to act as.
            question: reads; its connection is in autocommit mode.

        Raises:
            Away: the database does not answer.
            TooSlow: the answer takes too long.
            DatabaseError: the login may not act as the role, or refold is not installed.
        """
        with self._session(role) as (conn, kept):
            try:
                return question(conn)
            except psycopg.OperationalError as error:
                if not kept or not (conn.closed or conn.broken):
                    raise _told(error) from error
        with self._session(role) as (conn, _):
            try:
                return question(conn)
            except psycopg.OperationalError as error:
                raise _told(error) from error

    def explain(self, question: Callable[[psycopg.Connection], T], *, patient: bool) -> T:
        """Return the answer to a question that may read many events, in a session that no other page waits for.

        Args:
            question: reads; its connection acts as refold_inspector, in autocommit mode. It bounds its statements.
            patient: whether it may take long: then another such question is refused meanwhile, so that people who
                wait for answers never keep the server's threads.

        Raises:
            Away: the database does not answer.
            TooSlow: the answer takes too long, or others wait for theirs.
            DatabaseError: the login may not act as the role, or refold is not installed.
        """
        of = self._patient if patient else self._explaining
        wait_s = 0.0 if patient else PATIENCE_S
        with self._session("refold_inspector", fresh=True, of=of, wait_s=wait_s) as (conn, _):
            try:
                return question(conn)
            except psycopg.OperationalError as error:
                raise _told(error) from error

    @contextmanager
    def acting(self) -> Iterator[psycopg.Connection]:
        """Open a session that acts as refold_worker, for one action."""
        with self._session("refold_worker", fresh=True) as (conn, _):
            yield conn

    def close(self) -> None:
        """Close all sessions that are not in use."""
        for of in self._roles.values():
            while of.free:
                of.free.pop().close()

    @contextmanager
    def _session(
        self, role: Role, *, fresh: bool = False, of: _Role | None = None, wait_s: float = PATIENCE_S
    ) -> Iterator[tuple[psycopg.Connection, bool]]:
        of = self._roles[role] if of is None else of
        if not of.places.acquire(timeout=wait_s):
            raise TooSlow("other requests keep all sessions of the dashboard busy")
        conn: psycopg.Connection | None = None
        kept = False
        try:
            while of.free and conn is None:
                conn = of.free.pop()
                if fresh or conn.closed or conn.broken:
                    conn.close()
                    conn = None
            kept = conn is not None
            if conn is None:
                try:
                    conn = connect(self._url, role, autocommit=True, application_name=NAME, settings=SETTINGS[role])
                except psycopg.OperationalError as error:
                    raise _told(error) from error
            yield conn, kept
        finally:
            if conn is not None:
                idle = conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
                if idle and not fresh and not conn.closed:
                    of.free.append(conn)
                else:
                    conn.close()
            of.places.release()


def _told(error: psycopg.OperationalError) -> RefoldError:
    if isinstance(error, psycopg.errors.QueryCanceled | psycopg.errors.LockNotAvailable):
        return TooSlow("the database took too long to answer")
    # What the driver says may name hosts and users.
    return Away("the database does not answer")


@dataclass(slots=True)
class _Slot(Generic[T]):
    lock: threading.Lock = field(default_factory=threading.Lock)
    at: float | None = None
    value: Any = None
    error: Exception | None = None


FRESH_S = 1.0
"""Seconds for which an answer is good for everybody."""
SLOTS = 512
"""Most answers that are kept."""


class Shared:
    """Answers that all requests share for a second: one of them asks, the others wait for its answer.

    An error is shared, too: while the database is away, only one request at a time waits for it.
    """

    def __init__(self, fresh_s: float = FRESH_S) -> None:
        self._fresh_s = fresh_s
        self._lock = threading.Lock()
        self._slots: OrderedDict[Hashable, _Slot[Any]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T], *, fresh_s: float | None = None) -> T:
        """Return what was made for the key within the last second, or so many seconds, or make it now."""
        good_s = self._fresh_s if fresh_s is None else fresh_s
        with self._lock:
            slot = self._slots.setdefault(key, _Slot())
            self._slots.move_to_end(key)
            while len(self._slots) > SLOTS:
                self._slots.popitem(last=False)
        with slot.lock:
            # An error is tried again as soon as any.
            known_s = self._fresh_s if slot.error is not None else good_s
            if slot.at is None or time.monotonic() - slot.at > known_s:
                try:
                    slot.value, slot.error = make(), None
                except Exception as error:
                    slot.value, slot.error = None, error
                slot.at = time.monotonic()
            if slot.error is not None:
                raise slot.error
            value: T = slot.value
            return value

    def forget(self) -> None:
        """Forget all answers: something was done that changes them."""
        with self._lock:
            self._slots.clear()
