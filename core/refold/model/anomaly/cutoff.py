"""The distance beyond which a day is unusual, from the distances that the series itself had. Pure.

The rate of false alarms that is wanted is far smaller than one in the days that are kept. So the cut-off lies beyond
all of them: the tail above their upper quarter is continued as an exponential one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

LEAST = 3.0
"""Smallest cut-off, on the root scale. Chance alone (Poisson) passes it on one day in 740."""
FEWEST = 14
"""Fewest distances from which a cut-off is made."""
TAIL = 0.25
"""Part of the distances that counts as the tail."""
WIDER = 1.5
"""Ratio of the steepness that is assumed beyond the tail to the one that was seen.

With 1, real histories gave three times the alarms that were allowed (see docs/why/anomalies.md)."""


def cutoff(distances: Sequence[float], rate: float) -> float | None:
    """Return the distance that a day passes with a probability of `rate`; None if too little is known.

    The steepness of the tail is taken from its median: a few days that were unusual do not hide the next one.

    Args:
        distances: those of past days to one side, at least 0.
        rate: false alarms that are allowed, for each day and side.
    """
    if len(distances) < FEWEST:
        return None
    ordered = sorted(distances, reverse=True)
    tail = ordered[: math.ceil(len(ordered) * TAIL)]
    begin = tail[-1]
    steep = WIDER * (median(tail) - begin) / math.log(2)
    return max(LEAST, begin + steep * math.log(TAIL / min(rate, TAIL)))
