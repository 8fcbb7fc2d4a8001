"""How often a worker takes pages while somebody holds an old snapshot.

Each page leaves versions of the rows that it updates, which nobody may vacuum and every later page steps over. That
grows with the number of pages, not of events: larger pages, less often, make the growth a square root.
"""

from __future__ import annotations

from collections import deque

BREATH = 0.005
"""Seconds from one round of small pages to the next: they cost the same whether they bring one event or fifty, and
whoever never rests keeps the producers from a processor."""
SHARE = 10
"""Under an old snapshot: so many times what a round costs more than before."""
MOST = 1.0
"""Seconds from one round to the next at most."""
ROUNDS = 20
"""The cheapest of so many rounds tells what one costs: a burst makes some of them dear, old versions all."""


class Pace:
    """Rests between rounds. Pure."""

    def __init__(self) -> None:
        self._held = False
        self._usual: float | None = None
        self._last: deque[float] = deque(maxlen=ROUNDS)

    def held(self, held: bool) -> None:
        """Takes note of whether an old snapshot is held."""
        self._held = held

    def rest(self, seconds: float) -> float:
        """Seconds from the start of a round to that of the next.

        Args:
            seconds: what the round took.
        """
        self._last.append(seconds)
        cheapest = min(self._last)
        if not self._held or self._usual is None:
            self._usual = cheapest
            return BREATH
        return min(MOST, max(BREATH, SHARE * (cheapest - self._usual)))
