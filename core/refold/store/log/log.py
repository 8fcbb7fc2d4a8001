"""A log with its own connection, for programs that only append."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import psycopg

from refold.errors import Overloaded
from refold.model.event.source_event import Answer, SourceEvent
from refold.model.pressure import Level
from refold.postgres.connect import Role, connect
from refold.postgres.retry import away, retrying
from refold.postgres.sqlstate import transient
from refold.postgres.watchdog import Watchdog
from refold.store.log.append import Receipt, all_accepted, append
from refold.store.pressure import RETRY_AFTER_S, Pressure
from refold.store.pressure import pressure as read_pressure

T = TypeVar("T")
PressureMode = Literal["wait", "raise", "ignore"]

LOOK_S = 2.0
"""Seconds between two looks at the pressure."""
WAIT_S = 1.0
"""Seconds between two looks while a batch waits."""

PESSIMISTIC_BATCHES = 20
"""Batches after a refused COPY that are classified event by event before the next COPY."""


class Log:
    """A log that appends batches, each in its own transaction, with retries.

    A batch without a reply (see `refold.postgres.watchdog`) is sent again; the ledger answers `duplicate` for events
    that had been stored. A standby is retried like a server that is down, except at the start.

    Args:
        url: libpq URL; the login role must be allowed to act as refold_producer.
        source: name of the producer; recorded with input that is rejected.
        pressure: what a batch does while producers are held back (`refold.pressure`): "ignore" it; "wait" until all is
            fine, as bulk does; or "raise" Overloaded once producers are refused.
        on_wait: called with the pressure about every second while a batch waits.
    """

    def __init__(
        self,
        url: str,
        *,
        source: str = "python",
        pressure: PressureMode = "ignore",
        on_wait: Callable[[Pressure], None] | None = None,
    ) -> None:
        self._url = url
        self._source = source
        self._mode = pressure
        self._on_wait = on_wait
        self._role: Role = "refold_producer"
        self._looked_at = float("-inf")
        self._conn: psycopg.Connection | None = None
        self._watchdog: Watchdog | None = None
        self._pessimistic = 0
        self._served = False

    def append(self, events: Iterable[SourceEvent | Mapping[str, Any]]) -> list[Receipt]:
        """Append one batch and commit it.

        Returns:
            One receipt for each event, in order.

        Raises:
            psycopg.Error: the database refuses it, or stays away longer than the retries last.
            Overloaded: producers are refused, and the log was made with pressure="raise".
        """
        batch = list(events)
        self.hold_back()
        receipts = self.run(lambda conn: append(conn, batch, source=self._source, optimistic=self.optimistic))
        self.learn(receipts)
        return receipts

    def run(self, work: Callable[[psycopg.Connection], T]) -> T:
        """Run a function in its own transaction, and repeat the whole transaction after a transient error."""
        for attempt in retrying(retried=lambda error: away(error) if self._served else transient(error)):
            with attempt:
                conn = self.connection()
                try:
                    with conn.transaction():
                        return work(conn)
                except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction):
                    self.close()
                    raise
        raise AssertionError("unreachable: the retries end with a return or an exception")

    def hold_back(self) -> None:
        """Wait, or raise Overloaded, while producers are held back, as the log was made to do; between two batches."""
        if self._mode == "ignore" or time.monotonic() - self._looked_at < LOOK_S:
            return
        while True:
            found = self.run(read_pressure)
            self._looked_at = time.monotonic()
            if self._mode == "raise":
                if found.level is Level.stop:
                    raise Overloaded(f"producers are refused: {found.because}", RETRY_AFTER_S)
                return
            # A level that nobody measures any more would keep a producer for ever.
            if found.level is Level.fine or not found.known:
                return
            if self._on_wait is not None:
                self._on_wait(found)
            time.sleep(WAIT_S)

    def learn(self, receipts: list[Receipt]) -> None:
        """Choose COPY or classification for the next batches: after duplicates, a COPY is likely to be refused."""
        answers = {Answer.accepted} if all_accepted(receipts) else {receipt.answer for receipt in receipts}
        if Answer.duplicate in answers or Answer.conflict in answers:
            self._pessimistic = PESSIMISTIC_BATCHES
        elif self._pessimistic:
            self._pessimistic -= 1

    @property
    def optimistic(self) -> bool:
        """Return whether the next batch is tried as COPY."""
        return self._pessimistic == 0

    def connection(self) -> psycopg.Connection:
        """Return the log's connection; open it when first needed, or after it was lost."""
        if self._conn is None or self._conn.closed:
            self.close()
            self._conn = connect(self._url, self._role, application_name="refold log", autocommit=True)
            self._watchdog = Watchdog(self._conn, self._url)
            self._served = True
        return self._conn

    def close(self) -> None:
        """Close the connection; a batch is either committed or not stored."""
        if self._watchdog is not None:
            self._watchdog.close()
            self._watchdog = None
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def log_as(url: str, role: Role) -> Log:
    """Return a log that acts as another role: for its transactions with retries, and not to append."""
    log = Log(url)
    log._role = role
    return log
