"""Quantiles of durations from counts in buckets on a log scale.

Each bucket is 4 % wider than the one before, so that a quantile has a relative error of at most 2 %, whatever the
durations are. Counts of several workers and minutes can be added up. This is DDSketch (Masson, Rim and Lee, VLDB 2019)
without its limit on buckets: from a microsecond to a year there are 800.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

ACCURACY = 0.02
"""The greatest relative error of a quantile, as a share of the quantile."""
SHORTEST = 1e-6
"""Seconds. A shorter duration, or a negative one because a clock was set back, counts as this."""

_GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_LOG_GAMMA = math.log(_GAMMA)


def bucket(seconds: float) -> int:
    """Return the number of a duration's bucket: the k with gamma^(k-1) < seconds <= gamma^k."""
    return math.ceil(math.log(max(seconds, SHORTEST)) / _LOG_GAMMA)


def edge(number: int) -> float:
    """Return the greatest duration of a bucket, in seconds."""
    return float(_GAMMA**number)


def nearest(seconds: float) -> int:
    """Return the number of the bucket whose edge is nearest to a duration, in ratio."""
    return round(math.log(seconds) / _LOG_GAMMA)


def middle(number: int) -> float:
    """Return the duration that represents a bucket, in seconds; its relative error is at most `ACCURACY`."""
    return 2 * _GAMMA**number / (_GAMMA + 1)


def quantile(counts: Mapping[int, int], share: float) -> float | None:
    """Return the duration below which a share of all durations lies, in seconds; None if there are no durations.

    Args:
        counts: the number of durations in each bucket, by the bucket's number.
        share: 0 to 1, such as 0.95 for the 95th percentile.
    """
    total = sum(counts.values())
    if total == 0:
        return None
    rank = share * (total - 1)
    seen = 0
    for number in sorted(counts):
        seen += counts[number]
        if seen > rank:
            return middle(number)
    raise AssertionError("the counts add up to their total")


EDGES = tuple(nearest(2.0**power) for power in range(-10, 13))
"""Buckets at whose edges a histogram counts: those nearest to powers of two, from a millisecond to an hour, seconds."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of durations in steps of about two, for monitoring: far fewer numbers than buckets, and exact ones.

    Args:
        counts: durations up to each of `EDGES` and above the one before; the last are above all edges.
        seconds: sum of the durations, within 2 %.
    """

    counts: tuple[int, ...] = (0,) * (len(EDGES) + 1)
    seconds: float = 0.0

    @classmethod
    def of(cls, buckets: Mapping[int, int]) -> Histogram:
        """Return the histogram of counts in buckets."""
        counts = [0] * (len(EDGES) + 1)
        for number, events in buckets.items():
            counts[bisect_left(EDGES, number)] += events
        return cls(tuple(counts), sum(middle(number) * events for number, events in buckets.items()))

    def __add__(self, other: Histogram) -> Histogram:
        counts = tuple(one + more for one, more in zip(self.counts, other.counts, strict=True))
        return Histogram(counts, self.seconds + other.seconds)
