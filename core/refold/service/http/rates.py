"""Rates of tokens: a bucket for each, filled by the clock, so that a short burst passes. Pure but for the clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

BURST_S = 2.0
"""Seconds of its rate that a token may use at once."""


class Rates:
    """Buckets of events by token, in one process.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[int, tuple[float, float]] = {}

    def take(self, token_id: int, rate: int, events: int) -> int | None:
        """Take events from a token's bucket; return None, or the whole seconds after which they would fit.

        A request may take more than is there, if anything is, and the next ones wait for it: else a request larger than
        the bucket would never pass.
        """
        now = self._clock()
        most = max(rate * BURST_S, 1.0)
        left, at = self._buckets.get(token_id, (most, now))
        left = min(most, left + (now - at) * rate)
        if left < 1:
            self._buckets[token_id] = (left, now)
            return max(1, math.ceil((1 - left) / rate))
        self._buckets[token_id] = (left - events, now)
        return None
