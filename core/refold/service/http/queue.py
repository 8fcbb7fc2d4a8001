"""What waits for a commit: a bounded queue of entries, taken in groups and fairly by token."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from refold.store.log.append import Receipt
from refold.store.log.group import Offer

GROUP_EVENTS = 1000
"""Most events in one transaction."""
GROUP_BYTES = 4 * 2**20
"""Bytes of input after which a group takes no further entry."""


class Unavailable(Exception):
    """The events were not stored, or nobody knows: the caller is to send the same bytes again.

    Args:
        reason: why, for the caller.
        retry_after: seconds until then.
        pressure: whether too much is waiting; else the database is away.
    """

    def __init__(self, reason: str, retry_after: float = 1.0, *, pressure: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after
        self.pressure = pressure


@dataclass(slots=True, eq=False)
class Entry:
    """Events of one request, which are answered together.

    Args:
        offers: the events.
        tenant: whose they are; tenants take turns.
        size: bytes of input, about.
        future: receives the receipts, or Unavailable.
        deadline: monotonic seconds after which they are not sent again.
    """

    offers: Sequence[Offer]
    tenant: str
    size: int
    future: asyncio.Future[list[Receipt]]
    deadline: float
    added: float = field(default_factory=time.monotonic)


class Queue:
    """A queue between the event loop, which puts, and lanes, which take everything that waits.

    Args:
        most_events: events that may wait.
        most_bytes: bytes of input that may wait.
        group_events: events after which a group takes no further entry.
    """

    def __init__(self, most_events: int, most_bytes: int, *, group_events: int = GROUP_EVENTS) -> None:
        self._group_events = group_events
        self._most_events = most_events
        self._most_bytes = most_bytes
        self._waiting: dict[str, deque[Entry]] = {}
        self._changed = threading.Condition()
        self._closed = False
        self.events = 0
        """Events that wait."""
        self.bytes = 0
        """Bytes of input that wait, about."""

    def put(self, entry: Entry) -> bool:
        """Add an entry; return False if the queue is full or closed. An entry always fits into an empty queue."""
        with self._changed:
            full = self.events + len(entry.offers) > self._most_events or self.bytes + entry.size > self._most_bytes
            if self._closed or (self.events and full):
                return False
            self._waiting.setdefault(entry.tenant, deque()).append(entry)
            self.events += len(entry.offers)
            self.bytes += entry.size
            self._changed.notify()
        return True

    def take(self) -> list[Entry]:
        """Wait for entries, and take all that fit into a group; the empty list means that the queue is closed.

        Tenants take turns, one entry each, and the one that was first is last the next time.
        """
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            group: list[Entry] = []
            events = size = 0
            while self._waiting:
                tenant, entries = next(iter(self._waiting.items()))
                entry = entries[0]
                if group and (events + len(entry.offers) > self._group_events or size + entry.size > GROUP_BYTES):
                    break
                group.append(entries.popleft())
                events += len(entry.offers)
                size += entry.size
                del self._waiting[tenant]
                if entries:
                    self._waiting[tenant] = entries
            self.events -= events
            self.bytes -= size
            return group

    def close(self) -> None:
        """Take no further entries; lanes end when they have taken what waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
