"""Appending the deliveries of the day to the log, at the pace of the shop's clock."""

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
"""Most deliveries in a batch."""


@dataclass(slots=True)
class Received:
    """The received deliveries, and the answers of the log.

    Args:
        answers: number of deliveries, by answer.
        late: number of stored events that happened long before.
        surprises: deliveries with another answer than expected, in words.
    """

    answers: Counter[Answer] = field(default_factory=Counter)
    late: int = 0
    surprises: list[str] = field(default_factory=list)

    @property
    def rejected(self) -> int:
        """Return the number of conflicts and invalid events."""
        return self.answers[Answer.conflict] + self.answers[Answer.invalid]

    def append(self, log: Log, batch: Sequence[Delivery]) -> Counter[Answer]:
        """Append a batch to the log, check each answer, and return the number of each."""
        receipts = log.append([one.event for one in batch])
        for one, receipt in zip(batch, receipts, strict=True):
            self.answers[receipt.answer] += 1
            self.late += one.late and receipt.answer is Answer.accepted
            if receipt.answer is not one.fate:
                self.surprises.append(f"{one.event} is {receipt.answer}, but must be {one.fate}: {receipt.reason}")
        return Counter(receipt.answer for receipt in receipts)


def stream(
    log: Log,
    deliveries: Sequence[Delivery],
    received: Received,
    seconds: float,
    look: Callable[[float], None],
) -> None:
    """Append deliveries at their times of arrival.

    Args:
        log: the log to append to.
        deliveries: the deliveries, in order of arrival.
        received: counts the answers.
        seconds: duration of the day; it lasts longer if the log cannot keep up.
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
        # If the log cannot keep up, the shop's clock waits for it.
        look(min(clock, arrivals[sent]) if sent < len(arrivals) else clock)
        time.sleep(max(0.0, TICK_S - (time.monotonic() - now)))


class Rate:
    """The rate of deliveries over the last second."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def of(self, count: int) -> float:
        """Record a count, and return its growth in deliveries a second."""
        now = time.monotonic()
        self._seen.append((now, count))
        while len(self._seen) > 2 and self._seen[1][0] < now - 1.0:
            self._seen.popleft()
        then, before = self._seen[0]
        return (count - before) / (now - then) if now > then else 0.0
