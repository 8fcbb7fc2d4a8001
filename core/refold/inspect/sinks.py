"""What an operator sees of sinks: their states, what waits for them, and what their receivers said."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import psycopg

from refold.model.sink.state import Condition, SinkState
from refold.model.stream.cursor import next_read
from refold.store import outbox, sinks, undelivered
from refold.store.builds.build import cursor_of
from refold.store.incidents import inspects
from refold.store.outbox import Backlog

COUNTED = 10_000
"""Most messages that are counted."""


@dataclass(frozen=True, slots=True)
class SinkStatus:
    """A sink at one moment.

    Args:
        sink: its name.
        projection: the metric that it delivers.
        grain: what it delivers of it.
        kind: the kind of its receiver.
        condition: `active`; `paused` by a person or a restore; `stopped` by its receiver.
        following: whether messages tell all that the receiver lacks; otherwise slices are compared.
        failures: failed deliveries since the last that succeeded.
        failing_since: when the first of them failed, UTC.
        retry_at: when the next attempt is due, UTC.
        status: status of the last answer.
        error: what the receiver said last; an observer does not see it.
        messages: messages that wait, at most `COUNTED`; an observer does not see them.
        oldest_s: age of the oldest of them, seconds.
        behind: for the grain `events`, whether rows of the stream wait.
        undelivered: rows that the receiver refused, and that wait.
        delivered: rows delivered since the sink was created.
        delivered_at: when rows were delivered last, UTC.
        epoch: epoch of the versions that it delivers.
    """

    sink: str
    projection: str
    grain: str
    kind: str
    condition: Condition
    following: bool
    failures: int
    failing_since: datetime | None
    retry_at: datetime | None
    status: str | None
    error: str | None
    messages: int | None
    oldest_s: float | None
    behind: bool | None
    undelivered: int
    delivered: int
    delivered_at: datetime | None
    epoch: int

    @property
    def state(self) -> str:
        """Return the state in a few words."""
        if self.condition != "active":
            return self.condition
        if self.failures:
            return f"open ({self.status})" if self.status else "open"
        return "following" if self.following else "comparing slices"

    @property
    def troubled(self) -> bool:
        """Return whether an operator may want to look at it."""
        return self.condition != "active" or self.failures > 0 or self.undelivered > 0

    def as_dict(self) -> dict[str, Any]:
        """Return the status as a dict for JSON."""
        return asdict(self) | {"state": self.state}

    @property
    def waiting(self) -> str:
        """Return what waits, in a few words; empty if nothing does, or if it may not be seen."""
        more = "at least " if (self.messages or 0) >= COUNTED else ""
        messages = f"{more}{self.messages:,} message{'' if self.messages == 1 else 's'}" if self.messages else ""
        rows = "rows of the stream" if self.behind else ""
        return ", ".join(part for part in (messages, rows) if part)


def sink_statuses(conn: psycopg.Connection) -> list[SinkStatus]:
    """Return the status of every sink, by name.

    Args:
        conn: acts as a worker, an inspector or an observer.
    """
    evidence = inspects(conn)
    states = sinks.states(conn, errors=evidence)
    return [
        _status(conn, sink, states[sink.sink_id])
        for sink in sinks.every(conn, definitions=False)
        if sink.sink_id in states
    ]


def _status(conn: psycopg.Connection, sink: sinks.Sink, state: SinkState) -> SinkStatus:
    waits = _backlog(conn, state)
    return SinkStatus(
        sink.name,
        sink.projection,
        sink.grain,
        sink.kind,
        state.condition,
        state.following,
        state.failures,
        state.failing_since,
        state.retry_at,
        state.status,
        state.error,
        None if waits is None else waits.messages,
        None if waits is None else waits.oldest_s,
        _behind(conn, state),
        undelivered.waiting(conn, sink.sink_id),
        state.delivered,
        state.delivered_at,
        state.epoch,
    )


def _behind(conn: psycopg.Connection, state: SinkState) -> bool | None:
    if state.cursor is None or state.build_id is None:
        return None
    return next_read(state.cursor, cursor_of(conn, state.build_id)) is not None


def _backlog(conn: psycopg.Connection, state: SinkState) -> Backlog | None:
    """Return what waits for a sink; None for a role that may not read queues."""
    if not outbox.readable(conn, state.sink_id):
        return None
    return outbox.backlog(conn, state.sink_id, state.passed, COUNTED)
