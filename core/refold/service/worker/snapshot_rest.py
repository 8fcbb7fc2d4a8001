"""Rests between pages while a session holds an old snapshot.

Each page leaves versions of the rows that it updates, which nobody may vacuum and every later page steps over. That
grows with the number of pages, not of events: larger pages, less often, make the growth a square root.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping

BREATH = 0.005
"""Seconds from one round of small pages to the next: they cost the same whether they bring one event or fifty, and
whoever never rests keeps the producers from a processor."""
SHARE = 5
"""Under an old snapshot: so many times what the pages of a round cost more than before. Less often means fewer old
versions and more events that wait: an event waits least at 2, and then they take half of a processor; here a fifth."""
MOST = 1.0
"""Longest time from one round to the next, seconds."""
PAGES = 20
"""The cheapest of so many pages tells what one of a build costs: a burst makes some of them dear, old versions all."""


class Pace:
    """Rests between rounds. Pure.

    By builds, not by rounds: whoever rests longer finds work for more of them in the next round, which costs more for
    that alone.
    """

    def __init__(self) -> None:
        self._held = False
        self._usual: dict[int, float] = {}
        self._last: defaultdict[int, deque[float]] = defaultdict(lambda: deque(maxlen=PAGES))

    def held(self, held: bool) -> None:
        """Record whether an old snapshot is held."""
        self._held = held

    def rest(self, pages: Mapping[int, float]) -> float:
        """Seconds from the start of a round to that of the next.

        Args:
            pages: seconds that the page of each build took, by the number of the build.
        """
        dearer = 0.0
        for build, seconds in pages.items():
            self._last[build].append(seconds)
            cheapest = min(self._last[build])
            if not self._held:
                self._usual[build] = cheapest
            dearer += cheapest - self._usual.setdefault(build, cheapest)
        return min(MOST, max(BREATH, SHARE * dearer))
