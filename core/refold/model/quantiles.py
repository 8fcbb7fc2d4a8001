"""Quantiles of durations from counts in buckets on a log scale.

Each bucket is 4 % wider than the one before, so that a quantile has a relative error of at most 2 %, whatever the
durations are. Counts of several workers and minutes can be added up. This is DDSketch (Masson, Rim and Lee, VLDB 2019)
without its limit on buckets: from a microsecond to a year there are 800.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

ACCURACY = 0.02
"""The greatest relative error of a quantile, as a share of the quantile."""
SHORTEST = 1e-6
"""Seconds. A shorter duration, or a negative one because a clock was set back, counts as this."""

_GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_LOG_GAMMA = math.log(_GAMMA)


def bucket(seconds: float) -> int:
    """Return the number of a duration's bucket: the k with gamma^(k-1) < seconds <= gamma^k."""
    return math.ceil(math.log(max(seconds, SHORTEST)) / _LOG_GAMMA)


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
