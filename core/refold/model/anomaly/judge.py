"""The verdict on a day: which series are unusual, with the band that each was expected in. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from refold.model.anomaly.cutoff import cutoff
from refold.model.anomaly.residuals import FORTNIGHT, WINDOW, Values, distance, fortnight, level, share
from refold.model.anomaly.scale import root, unroot

LEAST_A_DAY = 5.0
"""Fewest events a day, on average, with which a day is judged; below, chance explains a day without any."""
SUSPECTS = 8
"""Series of a group that may be the culprit."""

Method = Literal["share", "level", "fortnight"]


@dataclass(frozen=True, slots=True)
class DailySeries:
    """A series of values a day.

    Args:
        name: its name.
        group: series of a group are compared with each other; None for a series without others.
        values: oldest first, the last is the day to judge. All series of a group have the same days.
    """

    name: str
    group: str | None
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a test says of a day.

    Args:
        series: name of the series.
        method: the test.
        value: of the day, or of the fortnight that ends with it.
        expected: what was expected.
        low: the lower end of the band.
        high: the upper end of the band.
    """

    series: str
    method: Method
    value: float
    expected: float
    low: float
    high: float

    @property
    def unusual(self) -> bool:
        return not self.low <= self.value <= self.high

    @property
    def excess(self) -> float:
        """Return how far the value is from what was expected, in widths of that side of the band."""
        side = self.low if self.value < self.expected else self.high
        return abs(distance(self.value, self.expected)) / max(abs(root(side) - root(self.expected)), 1e-9)


def judge(series: Sequence[DailySeries], budget: float) -> list[Verdict]:
    """Return the verdicts on the last day of some series; series of which too little is known have none.

    A series that is unusual is taken out of its group before the others are judged again: the share of each of them
    would be unusual only because of it.

    Args:
        series: all series that are watched.
        budget: false alarms a week that are allowed, of all of them together.
    """
    judged = [one for one in series if one.values and one.values[-1] is not None and _often(one.values)]
    if not judged:
        return []
    # Two tests with two sides each; the two sides of a fortnight overlap from day to day, which only makes them rarer.
    rate = budget / 7.0 / (4 * len(judged))
    found: list[Verdict] = []
    for group in dict.fromkeys(one.group for one in judged):
        members = [one for one in judged if one.group == group]
        if group is None or len(members) < 2:
            found += [verdict for one in members for verdict in _alone(one, rate)]
        else:
            found += _together(members, rate)
    return found


def _together(members: list[DailySeries], rate: float) -> list[Verdict]:
    past = {one.name: _past(one.values, _others(members, one), rate) for one in members}

    def verdicts_of(rest: list[DailySeries]) -> list[Verdict]:
        if len(rest) < 2:
            return []
        return [verdict for one in rest for verdict in _of(one, _others(rest, one), past[one.name])]

    found: list[Verdict] = []
    rest, verdicts = members, verdicts_of(members)
    while suspects := _suspects(verdicts):
        # If one is three times as large, the share of each other one is too small. The culprit is the one without which
        # the others are usual.
        left = {name: verdicts_of([one for one in rest if one.name != name]) for name in suspects}
        culprit = min(suspects, key=lambda name: len({one.series for one in left[name] if one.unusual}))
        found += [one for one in verdicts if one.series == culprit]
        rest, verdicts = [one for one in rest if one.name != culprit], left[culprit]
    return found + verdicts


def _suspects(verdicts: Sequence[Verdict]) -> list[str]:
    """Return the series that are unusual, the most unusual first, and of many only the first."""
    unusual = sorted((one for one in verdicts if one.unusual), key=lambda one: -one.excess)
    return list(dict.fromkeys(one.series for one in unusual))[:SUSPECTS]


def _alone(one: DailySeries, rate: float) -> list[Verdict]:
    return _of(one, None, _past(one.values, None, rate))


Cutoffs = dict[Method, tuple[float, float]]
"""By method: the greatest distance below, and above, what was expected."""


def _past(values: Values, others: Values | None, rate: float) -> Cutoffs:
    """Return the cut-offs of the tests, from all days but the last."""
    method: Method = "level" if others is None else "share"
    expected = level(values) if others is None else share(values, others)
    days = [
        distance(value, what)
        for value, what in zip(values[:-1], expected[:-1], strict=True)
        if value is not None and what is not None
    ]
    sums = [distance(*one) for one in fortnight(values, others)[:-1] if one is not None]
    found: Cutoffs = {}
    for name, distances in ((method, days), ("fortnight", sums)):
        low = cutoff([max(0.0, -one) for one in distances], rate)
        high = cutoff([max(0.0, one) for one in distances], rate)
        if low is not None and high is not None:
            found[name] = low, high
    return found


def _of(one: DailySeries, others: Values | None, cutoffs: Cutoffs) -> list[Verdict]:
    """Return the verdicts on the last day."""
    found = []
    value = one.values[-1]
    assert value is not None
    method: Method = "level" if others is None else "share"
    # Only what the last day needs.
    own = one.values[-(WINDOW + FORTNIGHT + 1) :]
    beside = None if others is None else others[-(WINDOW + FORTNIGHT + 1) :]
    expected = (level(own) if beside is None else share(own, beside))[-1]
    if method in cutoffs and expected is not None:
        found.append(_verdict(one.name, method, value, expected, cutoffs[method]))
    sums = fortnight(own, beside)[-1]
    if "fortnight" in cutoffs and sums is not None:
        found.append(_verdict(one.name, "fortnight", *sums, cutoffs["fortnight"]))
    return found


def _verdict(name: str, method: Method, value: float, expected: float, cutoffs: tuple[float, float]) -> Verdict:
    low, high = cutoffs
    middle = root(expected)
    # The smallest value of the root scale is that of 0: a band that reaches below has no lower end.
    return Verdict(name, method, value, expected, unroot(middle - low), unroot(middle + high))


def _others(members: Sequence[DailySeries], one: DailySeries) -> list[float | None]:
    """Return the sum of the other members of each day; None on a day that does not count for one of them."""
    rest = [other.values for other in members if other.name != one.name]
    return [
        None if any(value is None for value in day) else sum(value for value in day if value is not None)
        for day in zip(*rest, strict=True)
    ]


def _often(values: Values) -> bool:
    known = [value for value in values[-WINDOW - 1 : -1] if value is not None]
    return len(known) >= FORTNIGHT and sum(known) / len(known) >= LEAST_A_DAY
