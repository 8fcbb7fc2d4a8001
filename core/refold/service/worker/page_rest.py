"""Rests for builds with expensive pages, so that they delay no other build and cost less in total.

What makes a page expensive is seldom the number of its events: a key with a long history is read again for one event
of it, and beside an old snapshot a hot row is found behind all its versions. The events of ten pages then cost one
page hardly more than those of one. So the next page waits in proportion to what the last one took.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

from refold.engine.apply.page import FREE
from refold.store.builds.build import Build

SHARE = 3.0
"""Seconds of rest for each second beyond that: such a build gets a quarter of a worker."""
LONGEST = 30.0
"""Seconds of rest at most: half of what a metric may lag behind (`lag_limit`)."""


class Pacing:
    """The builds that rest in this worker, and until when.

    Args:
        clock: monotonic seconds.
        free: seconds of a page that need no rest.
        share: seconds of rest for each further second.
        longest: longest rest, seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        free: float = FREE,
        share: float = SHARE,
        longest: float = LONGEST,
    ) -> None:
        self._clock = clock
        self._free = free
        self._share = share
        self._longest = longest
        self._until: dict[int, float] = {}

    def took(self, build_id: int, seconds: float, *, full: bool) -> None:
        """Record the duration of a page.

        Args:
            build_id: build of the page.
            seconds: duration of the page.
            full: whether more events wait; pages of a backlog are large, and need no rest.
        """
        rest = 0.0 if full else min(max(0.0, seconds - self._free) * self._share, self._longest)
        self._until.pop(build_id, None)
        if rest > 0:
            self._until[build_id] = self._clock() + rest

    def due(self, builds: Iterable[Build]) -> list[Build]:
        """Return the builds that do not rest."""
        now = self._clock()
        return [build for build in builds if self._until.get(build.build_id, now) <= now]

    def wait(self) -> float:
        """Return the seconds until the next rest ends; infinite if no build rests."""
        now = self._clock()
        # A build that has rested and had nothing to do since is no reason to wake up.
        return min((until - now for until in self._until.values() if until > now), default=math.inf)
