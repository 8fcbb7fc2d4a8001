"""How far each day of a series is from what the days before it let expect, on the root scale. Pure.

All functions take values a day, oldest first; None is a day that does not count, because a backfill ran, or because the
series did not exist yet. They return what was expected of each day; None where too little is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from refold.model.anomaly.scale import root

Values = Sequence[float | None]

WINDOW = 28
"""Days before a day that say what to expect of it."""
LEAST = 14
"""Fewest of them that count."""
FORTNIGHT = 14
"""Days that the test for slow losses adds up."""
WEEKS = 6
"""Weeks whose same weekday says what to expect, for a series without others."""


def share(own: Values, others: Values) -> list[float | None]:
    """Return what to expect of each day by the share that the series had of the others, and by what they have now.

    Args:
        own: values of the series.
        others: the sum of the other series of its group, on the same days.
    """
    counts = [one is not None and other is not None for one, other in zip(own, others, strict=True)]
    of_own = _sums(own, counts)
    of_others = _sums(others, counts)
    known = list(accumulate(counts, initial=0))
    expected: list[float | None] = []
    for at, other in enumerate(others):
        first = max(0, at - WINDOW)
        before = of_others[at] - of_others[first]
        if other is None or other <= 0 or before <= 0 or known[at] - known[first] < LEAST:
            expected.append(None)
        else:
            expected.append(other * (of_own[at] - of_own[first]) / before)
    return expected


def level(own: Values) -> list[float | None]:
    """Return what to expect of each day by the same weekday of the weeks before, for a series without others."""
    expected: list[float | None] = []
    for at in range(len(own)):
        days = [own[day] for day in range(at - 7, max(-1, at - 7 * WEEKS - 1), -7) if day >= 0]
        same = [one for one in days if one is not None]
        expected.append(sum(same) / len(same) if len(same) >= 2 else None)
    return expected


def fortnight(own: Values, others: Values | None) -> list[tuple[float, float] | None]:
    """Return the sum of the fortnight that ends with each day, and what to expect of it.

    Args:
        own: values of the series.
        others: the sum of the other series of its group; without them, the days before say what to expect.
    """
    beside: Values = [1.0] * len(own) if others is None else others
    counts = [one is not None and other is not None for one, other in zip(own, beside, strict=True)]
    of_own, of_others = _sums(own, counts), _sums(beside, counts)
    known = list(accumulate(counts, initial=0))
    found: list[tuple[float, float] | None] = []
    for end in range(1, len(own) + 1):
        begin, first = end - FORTNIGHT, end - FORTNIGHT - WINDOW
        if first < 0 or known[end] - known[begin] < FORTNIGHT - 2 or known[begin] - known[first] < LEAST:
            found.append(None)
            continue
        before = of_others[begin] - of_others[first]
        now = of_others[end] - of_others[begin]
        if before <= 0 or now <= 0:
            found.append(None)
        else:
            found.append((of_own[end] - of_own[begin], now * (of_own[begin] - of_own[first]) / before))
    return found


def distance(value: float, expected: float) -> float:
    """Return how far a value is from what was expected, on the root scale; below zero: it is too small."""
    return root(value) - root(expected)


def _sums(values: Values, counts: Sequence[bool]) -> list[float]:
    """Return the sum of the days before each day."""
    return list(
        accumulate(
            (value or 0.0 if counted else 0.0 for value, counted in zip(values, counts, strict=True)), initial=0.0
        )
    )
