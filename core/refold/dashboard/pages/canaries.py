"""`/canaries`: candidates that some readers see, and how the last ones ended."""

from __future__ import annotations

from dataclasses import dataclass

from refold.dashboard.ask import Ask
from refold.inspect.health import Health
from refold.store.canaries import Canary, latest

ENDED = 10
"""Canaries that have ended and that the page still shows."""


@dataclass(frozen=True, slots=True)
class CanariesPage:
    """What the page shows."""

    health: Health
    canaries: list[Canary]


def read(ask: Ask) -> CanariesPage:
    """Read the page."""
    return CanariesPage(ask.health(), ask.read(lambda conn: latest(conn, ENDED)))
