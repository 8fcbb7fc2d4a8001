"""`/sinks`: what receivers have been given, and what waits for them."""

from __future__ import annotations

from dataclasses import dataclass

from refold.dashboard.ask import Ask
from refold.inspect.health import Health
from refold.inspect.sinks import SinkStatus, sink_statuses


@dataclass(frozen=True, slots=True)
class SinksPage:
    """What the page shows."""

    health: Health
    sinks: list[SinkStatus]


def read(ask: Ask) -> SinksPage:
    """Read the page."""
    return SinksPage(ask.health(), ask.read(sink_statuses))
