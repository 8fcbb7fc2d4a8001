"""Delays between an event and its record, counted in buckets, and the one of them that is judged. Pure."""

from __future__ import annotations

from collections.abc import Mapping

BUCKET = 1.25
"""Ratio of two neighbouring buckets."""
SHORTEST_S = 0.001
"""Shortest delay that is told from none, seconds."""
SKEW = 0.95
"""Quantile of the delays of a day."""


def skew(buckets: Mapping[int, int]) -> float:
    """Return the quantile `SKEW` of delays, seconds.

    Args:
        buckets: events by bucket; there is at least one.
    """
    rank = SKEW * (sum(buckets.values()) - 1)
    seen = 0
    for bucket in sorted(buckets):
        seen += buckets[bucket]
        if seen > rank:
            return float(BUCKET**bucket)
    raise AssertionError("the counts add up to their total")
