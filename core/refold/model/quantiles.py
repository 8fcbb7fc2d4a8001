"""Quantiles of durations from counts in buckets on a log scale.

Each bucket is 4 % wider than the one before, so that a quantile is off by at most 2 % of itself, whatever the durations
are; sketches of several workers and minutes add up. This is DDSketch (Masson, Rim and Lee, VLDB 2019) without its
limit on buckets: from a microsecond to a year there are 800.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

ACCURACY = 0.02
"""A quantile is off by at most this share of itself."""
SHORTEST = 1e-6
"""Seconds; what is shorter, or negative because clocks were set back, counts as this."""

_GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_LOG_GAMMA = math.log(_GAMMA)


def bucket(seconds: float) -> int:
    """The bucket that a duration falls into: the k with gamma^(k-1) < seconds <= gamma^k."""
    return math.ceil(math.log(max(seconds, SHORTEST)) / _LOG_GAMMA)


def middle(number: int) -> float:
    """The duration that stands for a bucket, seconds: off by at most `ACCURACY` at both of its ends."""
    return 2 * _GAMMA**number / (_GAMMA + 1)


def quantile(counts: Mapping[int, int], share: float) -> float | None:
    """The duration below which a share of them lies, seconds; None when there are none.

    Args:
        counts: how many durations fell into each bucket.
        share: 0 to 1; 0.95 for the 95th percentile.
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
