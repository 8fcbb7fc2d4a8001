"""Back-off for builds that fail, with growing pauses, so that a failing build delays no other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from refold.store.builds.build import Build

FIRST = 1.0
"""Seconds until the first retry; every failure doubles the pause."""
LONGEST = 60.0


@dataclass(slots=True)
class _Pause:
    seconds: float
    until: float
    message: str


class BuildBackoff:
    """The builds that failed in this worker, and when each may be retried.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pauses: dict[int, _Pause] = {}

    def failed(self, build: Build, message: str) -> bool:
        """Record a failure; return whether its message differs from the last one."""
        before = self._pauses.get(build.build_id)
        seconds = FIRST if before is None else min(before.seconds * 2, LONGEST)
        self._pauses[build.build_id] = _Pause(seconds, self._clock() + seconds, message)
        return before is None or before.message != message

    def worked(self, build: Build) -> bool:
        """Forget a build's failures; return whether there were any."""
        return self._pauses.pop(build.build_id, None) is not None

    def due(self, builds: Iterable[Build]) -> list[Build]:
        """Return the builds that may be tried now."""
        now = self._clock()
        return [
            build for build in builds if build.build_id not in self._pauses or self._pauses[build.build_id].until <= now
        ]
