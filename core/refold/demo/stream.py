"""The day's deliveries on their way into the log, at the pace of the shop's clock."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from refold.demo.shop import DAY_S, Delivery
from refold.model.event.source_event import Answer
from refold.store.log.log import Log

TICK_S = 0.05
"""Seconds between two batches."""
BATCH = 2_000
"""Deliveries in a batch at most."""


@dataclass(slots=True)
class Received:
    """What came in, and how the log answered.

    Args:
        answers: how often each.
        late: stored although they happened long before.
        surprises: deliveries that the log answered otherwise than it must.
    """

    answers: Counter[Answer] = field(default_factory=Counter)
    late: int = 0
    surprises: list[str] = field(default_factory=list)

    @property
    def aside(self) -> int:
        """Conflicts and invalid ones."""
        return self.answers[Answer.conflict] + self.answers[Answer.invalid]

    def append(self, log: Log, batch: Sequence[Delivery]) -> Counter[Answer]:
        """Hands a batch to the log and looks at each answer."""
        receipts = log.append([one.event for one in batch])
        for one, receipt in zip(batch, receipts, strict=True):
            self.answers[receipt.answer] += 1
            self.late += one.late and receipt.answer is Answer.accepted
            if receipt.answer is not one.fate:
                self.surprises.append(f"{one.event} is {receipt.answer}, must be {one.fate}: {receipt.reason}")
        return Counter(receipt.answer for receipt in receipts)


def stream(
    log: Log,
    deliveries: Sequence[Delivery],
    received: Received,
    seconds: float,
    look: Callable[[float], None],
) -> None:
    """Appends what arrives, as it arrives.

    Args:
        log: where to.
        deliveries: in order of arrival.
        received: counts them.
        seconds: how long the day lasts; longer where the log cannot follow.
        look: called after every batch, with the shop's clock in seconds since midnight.
    """
    started = time.monotonic()
    arrivals = [one.at for one in deliveries]
    sent = 0
    while sent < len(deliveries):
        now = time.monotonic()
        clock = min((now - started) / seconds, 1.0) * DAY_S
        until = min(bisect_right(arrivals, clock), sent + BATCH)
        if until > sent:
            received.append(log, deliveries[sent:until])
            sent = until
        # Where the log cannot follow, the shop's clock waits for it.
        look(min(clock, arrivals[sent]) if sent < len(arrivals) else clock)
        time.sleep(max(0.0, TICK_S - (time.monotonic() - now)))


class Rate:
    """Deliveries a second, over the last second."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def of(self, count: int) -> float:
        """Takes a count and answers how fast it grew."""
        now = time.monotonic()
        self._seen.append((now, count))
        while len(self._seen) > 2 and self._seen[1][0] < now - 1.0:
            self._seen.popleft()
        then, before = self._seen[0]
        return (count - before) / (now - then) if now > then else 0.0
