"""`/toil`: how much of people's time the metrics took, and what ended without anybody."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from refold.dashboard.ask import Ask
from refold.inspect.health import Health
from refold.inspect.report import ToilReport, read_toil

SPANS = {"30d": timedelta(days=30), "7d": timedelta(days=7), "90d": timedelta(days=90)}
"""Time spans that can be chosen."""


@dataclass(frozen=True, slots=True)
class ToilPage:
    """What the page shows.

    Args:
        health: the health of all metrics.
        span: the time span that was chosen.
        report: the figures, and what they are made of.
    """

    health: Health
    span: str
    report: ToilReport


def read(ask: Ask) -> ToilPage:
    """Read the page."""
    span = ask.choice("span", *SPANS)
    return ToilPage(ask.health(), span, ask.observe(lambda conn: read_toil(conn, SPANS[span])))
