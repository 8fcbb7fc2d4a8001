"""A log with its own connection, for programs that only append."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import psycopg

from refold.model.event.source_event import Answer, SourceEvent
from refold.postgres.connect import connect
from refold.postgres.retry import away, retrying
from refold.postgres.sqlstate import transient
from refold.postgres.watchdog import Watchdog
from refold.store.log.append import Receipt, append

T = TypeVar("T")

PESSIMISTIC_BATCHES = 20
"""Batches after a refused COPY that are classified event by event before the next COPY."""


class Log:
    """A log that appends batches, each in its own transaction, with retries.

    A batch without a reply (see `refold.postgres.watchdog`) is sent again; the ledger answers `duplicate` for events
    that had been stored. A standby is retried like a server that is down, except at the start.

    Args:
        url: libpq URL; the login role must be allowed to act as refold_producer.
        source: name of the producer; recorded with input that is rejected.
    """

    def __init__(self, url: str, *, source: str = "python") -> None:
        self._url = url
        self._source = source
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
        """
        batch = list(events)
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

    def learn(self, receipts: list[Receipt]) -> None:
        """Choose COPY or classification for the next batches: after duplicates, a COPY is likely to be refused."""
        answers = {receipt.answer for receipt in receipts}
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
            self._conn = connect(self._url, "refold_producer", application_name="refold log", autocommit=True)
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
