"""The committer: queues and lanes for live and bulk events, and what it may still take."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable, Sequence

from refold.model.pressure import Level, next_level
from refold.service.http.lane import Lane
from refold.service.http.queue import GROUP_EVENTS, Entry, Queue, Unavailable
from refold.store.log.append import Receipt
from refold.store.log.group import Offer, append_bulk, append_group
from refold.store.log.log import Log
from refold.store.pressure import RETRY_AFTER_S, Pressure

LIVE_EVENTS = 64
"""Most events of a request that goes with the live ones; larger requests are bulk."""
DEADLINE_S = 10.0
"""Seconds for which a request waits for its commit before the answer is 503."""
MOST_EVENTS, MOST_BYTES = 20_000, 64 * 2**20
"""Events, and bytes of input, that may wait in each queue."""
EXPIRE_S = 0.25
"""Seconds between two looks for requests that have waited too long."""
SLOW_S, STOP_S, BACK_S = 1.0, 3.0, 0.5
"""Estimated seconds in the queue from which bulk yields, from which nothing is taken, and below which all is well."""
SMOOTHING = 0.2
"""Weight of the newest commit in the measured rate."""
LANES = 1
"""Connections for live events: while one waits for its commit, the other prepares the next."""


class Committer:
    """Group commit for a server of HTTP.

    Args:
        url: libpq URL; the login must be allowed to act as refold_producer.
        loop: the event loop.
        shared: what holds all producers back.
        lanes: connections for live events.
        group_events: most events in one transaction.
    """

    def __init__(
        self,
        url: str,
        loop: asyncio.AbstractEventLoop,
        shared: Callable[[], Pressure] = Pressure,
        *,
        lanes: int = LANES,
        group_events: int = GROUP_EVENTS,
    ) -> None:
        self._loop = loop
        self._shared = shared
        self._live = Queue(MOST_EVENTS, MOST_BYTES, group_events=group_events)
        self._bulk = Queue(MOST_EVENTS, MOST_BYTES)
        self._rate = 0.0
        self._parallel = lanes
        self._level = Level.fine
        self._lanes = [
            Lane(f"refold live {number}", url, self._live, _append_live, loop, self._measure) for number in range(lanes)
        ]
        self._lanes.append(Lane("refold bulk", url, self._bulk, _append_bulk, loop, lambda events, seconds: None))
        self._unanswered: deque[Entry] = deque()
        self._timer = loop.call_later(EXPIRE_S, self._expire)
        for lane in self._lanes:
            lane.start()

    @property
    def waiting(self) -> int:
        """Return the number of events that wait for their commit."""
        return self._live.events + self._bulk.events

    def level(self) -> Level:
        """Return the pressure: of the queue of live events, or what holds all producers back."""
        self._level = next_level(self._level, self._wait(), slow=SLOW_S, stop=STOP_S, back=BACK_S)
        return max(self._level, self._shared().level)

    @property
    def because(self) -> str:
        """Return why nothing more is taken."""
        if self._level is Level.stop:
            return f"{self.waiting} events are waiting, more than can be stored soon"
        return self._shared().because or f"{self.waiting} events are waiting, more than can be stored soon"

    def retry_after(self) -> int:
        """Return whole seconds after which a refused request may be sent again, spread so that not all come at once."""
        wait = RETRY_AFTER_S if self._shared().level is Level.stop else self._wait()
        return max(1, math.ceil(wait * random.uniform(0.8, 1.2)))

    async def submit(self, offers: Sequence[Offer], tenant: str, size: int, *, bulk: bool = False) -> list[Receipt]:
        """Commit events and return their receipts.

        Args:
            offers: events of one request.
            tenant: whose they are.
            size: bytes of input.
            bulk: whether they wait behind live events.

        Raises:
            Unavailable: they were not stored, or nobody knows.
        """
        if bulk:
            await self._yield_to_live()
        if self.level() is Level.stop:
            raise self._too_much()
        entry = Entry(offers, tenant, size, self._loop.create_future(), time.monotonic() + DEADLINE_S)
        if not (self._bulk if bulk else self._live).put(entry):
            raise self._too_much()
        self._unanswered.append(entry)
        return await entry.future

    def _expire(self) -> None:
        """Answer the entries whose deadline is over; one timer for all costs less than one for each."""
        now = time.monotonic()
        while self._unanswered and (self._unanswered[0].future.done() or self._unanswered[0].deadline < now):
            entry = self._unanswered.popleft()
            if not entry.future.done():
                reason = f"the database has not answered within {DEADLINE_S:.0f} s"
                entry.future.set_exception(Unavailable(reason, self.retry_after()))
        self._timer = self._loop.call_later(EXPIRE_S, self._expire)

    async def _yield_to_live(self) -> None:
        """Wait until live events do not, for as long as a request may wait."""
        end = time.monotonic() + DEADLINE_S / 2
        while self.level() is not Level.fine and time.monotonic() < end:
            await asyncio.sleep(0.05)

    def _too_much(self) -> Unavailable:
        shared = self._shared()
        # A full disk is no matter of this client's rate.
        disk = self._level is not Level.stop and shared.level is Level.stop and shared.signals[0].signal == "disk"
        return Unavailable(self.because, self.retry_after(), pressure=not disk)

    def close(self) -> None:
        """Commit what waits, and end the lanes; not from the event loop, which has to deliver the answers."""
        self._live.close()
        self._bulk.close()
        for lane in self._lanes:
            lane.join(DEADLINE_S + 5)

    def _wait(self) -> float:
        """Return the estimated seconds until an event that came now would be committed."""
        return self._live.events / self._rate if self._rate else 0.0

    def _measure(self, events: int, seconds: float) -> None:
        """Take a commit of one lane into the rate of all, events/s. Called from lanes."""
        rate = self._parallel * events / max(seconds, 1e-4)
        self._rate = rate if not self._rate else (1 - SMOOTHING) * self._rate + SMOOTHING * rate


def _append_live(log: Log, offers: Sequence[Offer]) -> list[Receipt]:
    return append_group(log.connection(), offers)


def _append_bulk(log: Log, offers: Sequence[Offer]) -> list[Receipt]:
    receipts = append_bulk(log.connection(), offers, optimistic=log.optimistic)
    log.learn(receipts)
    return receipts
