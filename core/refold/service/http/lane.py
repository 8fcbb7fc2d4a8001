"""A lane: a thread with one connection, which commits everything that waits in one transaction. No timer is involved.

While a group is being committed, the next one gathers: an idle server commits a lone event at once, and under load the
groups grow with it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Sequence

import psycopg

from refold.errors import RefoldError
from refold.postgres.failpoints import failpoint
from refold.postgres.retry import away
from refold.postgres.sqlstate import caused_by_event
from refold.service.http.queue import Entry, Queue, Unavailable
from refold.store.log.append import Receipt, raw_text
from refold.store.log.group import Offer
from refold.store.log.log import Log

log = logging.getLogger("refold.serve")

Append = Callable[[Log, Sequence[Offer]], list[Receipt]]
Delivery = tuple[Entry, list[Receipt] | Unavailable]

FIRST_DELAY_S, LONGEST_DELAY_S = 0.02, 1.0
"""Back-off between two attempts at a group while the database is away."""
AWAY_RETRY_S = 2.0
"""What a caller is told to wait when the database was away until its deadline, seconds."""


class Lane(threading.Thread):
    """A thread that takes groups from a queue and commits them.

    Args:
        name: of the thread.
        url: libpq URL; the login must be allowed to act as refold_producer.
        queue: where entries wait.
        append: commits offers over the session of a log, and returns their receipts.
        loop: event loop of the entries' futures.
        measured: called after every commit with the number of events and the seconds that it took.
    """

    def __init__(
        self,
        name: str,
        url: str,
        queue: Queue,
        append: Append,
        loop: asyncio.AbstractEventLoop,
        measured: Callable[[int, float], None],
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._queue = queue
        self._append = append
        self._loop = loop
        self._measured = measured
        self._session = Log(url, source="http")

    def run(self) -> None:
        while group := self._queue.take():
            try:
                self._commit(group)
            except BaseException:
                log.exception("a group of events could not be committed")
                self._deliver([(entry, Unavailable("the server has failed")) for entry in group])
        self._session.close()

    def _commit(self, group: list[Entry]) -> None:
        """Commit a group; while the database is away, again until the deadline of each entry."""
        delay = FIRST_DELAY_S
        while True:
            try:
                receipts = self._attempt([offer for entry in group for offer in entry.offers])
            except (psycopg.Error, RefoldError) as error:
                if isinstance(error, psycopg.Error) and caused_by_event(error):
                    self._isolate(group, error)
                    return
                retried = away(error)
                told = Unavailable(
                    "the database is away"
                    if retried
                    else "the database refuses the events; the log of `refold serve` says why",
                    AWAY_RETRY_S,
                )
                if not retried:
                    log.error("events cannot be appended: %s", str(error).strip())
                    self._deliver([(entry, told) for entry in group])
                    return
                if isinstance(error, (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction)):
                    self._session.close()
                late = [entry for entry in group if time.monotonic() + delay > entry.deadline]
                self._deliver([(entry, told) for entry in late])
                group = [entry for entry in group if entry not in late]
                if not group:
                    return
                time.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(2 * delay, LONGEST_DELAY_S)
                continue
            failpoint("group_committed")
            answers = iter(receipts)
            self._deliver([(entry, [next(answers) for _ in entry.offers]) for entry in group])
            return

    def _attempt(self, offers: list[Offer]) -> list[Receipt]:
        started = time.monotonic()
        receipts = self._append(self._session, offers)
        self._measured(len(offers), time.monotonic() - started)
        return receipts

    def _isolate(self, group: list[Entry], error: psycopg.Error) -> None:
        """Commit a group that one of its events makes fail: by halves, until that one is alone, and is rejected."""
        if len(group) > 1:
            middle = len(group) // 2
            self._commit(group[:middle])
            self._commit(group[middle:])
            return
        [entry] = group
        if self._refuse_culprits(entry.offers, error):
            self._commit(group)
        else:
            log.error("events cannot be appended together: %s", str(error).strip())
            self._deliver([(entry, Unavailable("the database refuses these events together; send fewer at a time"))])

    def _refuse_culprits(self, offers: Sequence[Offer], error: psycopg.Error) -> int:
        """Find the events with which the database fails, make each an invalid one, and return their number."""
        if len(offers) == 1:
            [offer] = offers
            if offer.event is None:
                raise error
            reason = f"the database refuses it: {error.diag.message_primary or str(error).strip()}"
            offer.refuse(reason, raw_text(offer.event))
            return 1
        refused = 0
        middle = len(offers) // 2
        for half in (offers[:middle], offers[middle:]):
            try:
                with self._session.connection().transaction(force_rollback=True):
                    self._append(self._session, half)
            except psycopg.Error as failure:
                if not caused_by_event(failure):
                    raise
                refused += self._refuse_culprits(half, failure)
        return refused

    def _deliver(self, deliveries: list[Delivery]) -> None:
        if deliveries:
            try:
                self._loop.call_soon_threadsafe(_hand_over, deliveries)
            except RuntimeError:  # the loop has ended, and with it who waits
                return


def _hand_over(deliveries: list[Delivery]) -> None:
    for entry, result in deliveries:
        if entry.future.done():  # the caller has gone
            continue
        if isinstance(result, Unavailable):
            entry.future.set_exception(result)
        else:
            entry.future.set_result(result)
