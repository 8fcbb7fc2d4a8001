"""`/incidents`: faults on a time line, and how soon they were found and over."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from refold.dashboard.ask import Ask
from refold.inspect.health import Health
from refold.inspect.incidents import Incidents, incidents

SPANS = {"24h": timedelta(hours=24), "7d": timedelta(days=7), "30d": timedelta(days=30)}


@dataclass(frozen=True, slots=True)
class IncidentsPage:
    """What the page shows."""

    health: Health
    span: str
    found: Incidents


def read(ask: Ask) -> IncidentsPage:
    """Read the page."""
    span = ask.choice("span", "7d", "24h", "30d")
    return IncidentsPage(ask.health(), span, ask.read(lambda conn: incidents(conn, SPANS[span], most=500)))
