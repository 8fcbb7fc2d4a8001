"""What a request is answered: one event by a status of its own, several by counts and the problems.

Pure: the receipts that it adds up are plain values of the log's writers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from refold.model.event.source_event import Answer
from refold.store.log.append import Receipt

MOST_PROBLEMS = 100
"""Most problems that an answer lists."""
STATUS = {Answer.accepted: 201, Answer.duplicate: 200, Answer.conflict: 409, Answer.invalid: 422}
"""Statuses of the answer for one event."""


@dataclass(slots=True)
class Summary:
    """The answers for the events of one request, added up.

    Args:
        counts: number of events by answer.
        problems: the first events that were rejected.
        events: one answer for each, if the client asks for that.
    """

    counts: dict[Answer, int] = field(default_factory=lambda: dict.fromkeys(Answer, 0))
    problems: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] | None = None

    def add(self, indexes: Iterable[int], receipts: Iterable[Receipt]) -> None:
        """Add receipts, with the places of their events in the request, from 0."""
        for index, receipt in zip(indexes, receipts, strict=True):
            self.counts[receipt.answer] += 1
            if receipt.answer.rejected and len(self.problems) < MOST_PROBLEMS:
                self.problems.append(told(index, receipt))
            if self.events is not None:
                self.events.append(told(index, receipt))

    @property
    def total(self) -> int:
        """Return the number of events."""
        return sum(self.counts.values())

    @property
    def status(self) -> int:
        """Return the status for several events: 200 all are in the log, 207 some were rejected, 422 none was valid."""
        if self.total and self.counts[Answer.invalid] == self.total:
            return 422
        return 207 if self.counts[Answer.conflict] or self.counts[Answer.invalid] else 200

    def body(self) -> dict[str, Any]:
        """Return the body of the answer."""
        body: dict[str, Any] = {answer.value: count for answer, count in self.counts.items()}
        body["problems"] = self.problems
        if self.events is not None:
            body["events"] = self.events
        return body


def told(index: int, receipt: Receipt) -> dict[str, Any]:
    """Return what is said of one event."""
    found: dict[str, Any] = {"index": index, "id": receipt.event_id, "answer": receipt.answer.value}
    if receipt.reason is not None:
        found["reason"] = receipt.reason
    return found
