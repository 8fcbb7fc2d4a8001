"""Silence: a series that always had events has none, for longer than it ever had. Pure.

Time is counted in the events that would have come meanwhile, by the hours of the week: a night says less than a noon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

HOURS = 168
"""Hours of a week."""
WEEKS = 8
"""Weeks of history that count."""
LEAST_WEEKS = 4
"""Fewest weeks of history with which a silence is judged."""
LEAST = 12.0
"""Expected events that must be missing at least."""
FACTOR = 2.0
"""So many times the longest silence of the history is unusual."""


@dataclass(frozen=True, slots=True)
class Silence:
    """A silence at this moment.

    Args:
        hours: whole hours without an event, up to now.
        expected: events that would have come in them.
        limit: expected events beyond which the silence is unusual.
    """

    hours: int
    expected: float
    limit: float

    @property
    def unusual(self) -> bool:
        return self.expected > self.limit


def silence(counts: Sequence[float | None]) -> Silence | None:
    """Return the silence at the end of a series; None if its history is too short.

    Args:
        counts: events of each hour, oldest first, up to the last hour that is over. None is an hour that does not
            count, because a backfill ran.
    """
    trailing = 0
    for count in reversed(counts):
        if count:
            break
        trailing += 1
    end = len(counts) - trailing
    begin = max(0, end - WEEKS * HOURS)
    history = counts[begin:end]
    if len(history) < LEAST_WEEKS * HOURS:
        return None
    profile = _profile(history, begin)
    longest = run = 0.0
    for at, count in enumerate(history, begin):
        run = 0.0 if count else run + (profile[at % HOURS] if count is not None else 0.0)
        longest = max(longest, run)
    missing = sum(profile[at % HOURS] for at in range(end, len(counts)) if counts[at] is not None)
    return Silence(trailing, missing, max(LEAST, FACTOR * longest))


def _profile(history: Sequence[float | None], begin: int) -> list[float]:
    """Return the mean events of each hour of the week; the place of an hour is its number from the first count."""
    sums, hours = [0.0] * HOURS, [0] * HOURS
    for at, count in enumerate(history, begin):
        if count is not None:
            sums[at % HOURS] += count
            hours[at % HOURS] += 1
    return [total / max(number, 1) for total, number in zip(sums, hours, strict=True)]
