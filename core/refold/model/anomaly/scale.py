"""The root scale, on which counts of any size vary by about one. Pure."""

from __future__ import annotations

import math


def root(value: float) -> float:
    """Return a count on the root scale, 2√(x + ⅜): a Poisson variable has a standard deviation of one there."""
    return 2.0 * math.sqrt(max(value, 0.0) + 0.375)


def unroot(value: float) -> float:
    """Return the count that a value of the root scale belongs to, at least 0."""
    return max((max(value, 0.0) / 2.0) ** 2 - 0.375, 0.0)
