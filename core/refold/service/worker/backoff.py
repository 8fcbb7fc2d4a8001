"""Builds that fail are left alone for a while, longer each time, so that one of them holds up no other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from refold.store.builds.build import Build

FIRST = 1.0
"""Seconds until the first new attempt; every failure doubles it."""
LONGEST = 60.0


@dataclass(slots=True)
class _Pause:
    seconds: float
    until: float
    message: str


class BuildBackoff:
    """Remembers which builds failed here, and when each may be tried again.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pauses: dict[int, _Pause] = {}

    def failed(self, build: Build, message: str) -> bool:
        """Notes a failure; whether it is news (another message than the last)."""
        before = self._pauses.get(build.build_id)
        seconds = FIRST if before is None else min(before.seconds * 2, LONGEST)
        self._pauses[build.build_id] = _Pause(seconds, self._clock() + seconds, message)
        return before is None or before.message != message

    def worked(self, build: Build) -> bool:
        """Forgets about a build's failures; whether there were any."""
        return self._pauses.pop(build.build_id, None) is not None

    def due(self, builds: Iterable[Build]) -> list[Build]:
        """The builds that may be tried now."""
        now = self._clock()
        return [
            build for build in builds if build.build_id not in self._pauses or self._pauses[build.build_id].until <= now
        ]
