"""`/events/ID`: an event, and every row of every metric that it is in; `/events?trace=…`: the events of a trace."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from refold.dashboard.ask import Ask
from refold.dashboard.pages.explained import Explained, explained
from refold.errors import InputError
from refold.inspect.health import Health
from refold.inspect.lineage.cost import Bound
from refold.inspect.lineage.where import Found, where
from refold.inspect.traces import Appended, look


@dataclass(frozen=True, slots=True)
class Located:
    """Where an event or a trace is.

    Args:
        found: where the event is; None for a trace.
        appended: the appends of the trace, or the one of the event, with the time at which each metric had it.
    """

    found: Found | None
    appended: list[Appended]

    @property
    def trace_id(self) -> str | None:
        """Return the sampled trace that appended it, as 32 hex digits."""
        return self.appended[0].trace_id if self.appended else None


@dataclass(frozen=True, slots=True)
class EventPage:
    """What the page shows.

    Args:
        health: the health of all metrics.
        event_id: the id; empty for a trace.
        trace: the trace; empty for an event.
        where: where it is; None if nothing is asked for.
    """

    health: Health
    event_id: str
    trace: str
    where: Explained[Located] | None


def read(ask: Ask) -> EventPage:
    """Read the page.

    Raises:
        NotThere: there is no such event or trace.
        SignInFirst: this request may not see events.
    """
    event_id = ask.path.get("id") or ask.query.get("id", "")
    trace = "" if event_id else ask.query.get("trace", "")
    ask.insist()

    def located(conn: psycopg.Connection, bound: Bound) -> Located:
        if trace:
            return Located(None, look(conn, trace))
        found = where(conn, ask.compiler, event_id, bound=bound)
        try:
            return Located(found, look(conn, event_id) if found.event is not None else [])
        except InputError:
            # It went between the two questions.
            return Located(found, [])

    return EventPage(ask.health(), event_id, trace, explained(ask, located) if event_id or trace else None)
