"""The context of a trace, and the moment at which something begins."""

from __future__ import annotations

import re
import time
from typing import NamedTuple

_TRACEPARENT = re.compile(
    "(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?P<more>-.*)?"
)
_LONGEST = 512


class Context(NamedTuple):
    """A sampled trace that appended events, and what a page did with them.

    Args:
        trace_id: of the trace.
        span_id: of the span that appended the events.
        events: rows of them in the page.
        dead_letters: how many of them failed.
        error: SQLSTATE or class of the error of the last one that failed.
    """

    trace_id: int
    span_id: int
    events: int
    dead_letters: int = 0
    error: str | None = None

    @property
    def traceparent(self) -> str:
        """Return the context as W3C Trace Context writes it."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-01"


class Moment(NamedTuple):
    """The beginning of something, by the wall clock and by one that is never set."""

    wall_ns: int
    steady_ns: int

    @classmethod
    def now(cls) -> Moment:
        return cls(time.time_ns(), time.perf_counter_ns())

    def since(self) -> int:
        """Return the nanoseconds since then; they do not depend on the wall clock."""
        return time.perf_counter_ns() - self.steady_ns


def sampled(traceparent: str) -> Context | None:
    """Return the context that a text names if it is a sampled one; None for anything else."""
    if len(traceparent) > _LONGEST or (found := _TRACEPARENT.fullmatch(traceparent)) is None:
        return None
    if (found["version"] == "00" and found["more"]) or not int(found[4], 16) & 1:
        return None
    return Context(int(found[2], 16), int(found[3], 16), 0)
