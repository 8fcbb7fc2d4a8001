"""What is noticed, and how often the tests are wrong about series in which nothing happens."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refold.model.anomaly.cutoff import LEAST, cutoff
from refold.model.anomaly.judge import DailySeries, Verdict, judge
from refold.model.anomaly.residuals import share
from refold.model.anomaly.scale import root, unroot
from refold.model.anomaly.silence import HOURS, silence
from tests.support.watching import poisson

MEANS = {"view": 4000.0, "cart": 900.0, "purchase": 250.0}
Change = Callable[[int, str, float], float]


def group(
    means: dict[str, float], days: int, seed: int, change: Change = lambda at, name, value: value
) -> list[DailySeries]:
    chance = random.Random(seed)
    week = [1.0, 1.0, 1.05, 1.0, 1.1, 0.7, 0.6]
    values: dict[str, list[float]] = {name: [] for name in means}
    for at in range(days):
        busy = week[at % 7] * chance.lognormvariate(0, 0.1)
        for name, mean in means.items():
            values[name].append(round(change(at, name, poisson(mean * busy, chance))))
    return [DailySeries(name, "action", tuple(of)) for name, of in values.items()]


def found(series: list[DailySeries], budget: float = 1.0) -> list[Verdict]:
    return [one for one in judge(series, budget) if one.unusual]


@pytest.mark.parametrize(("times", "side"), [(0.0, "low"), (0.5, "low"), (3.0, "high")])
@pytest.mark.parametrize("name", MEANS)
def test_a_day_that_lacks_or_has_too_much_is_noticed_of_that_series_alone(name: str, times: float, side: str) -> None:
    series = group(MEANS, 90, 3, lambda at, one, value: value * times if (at, one) == (89, name) else value)
    verdicts = found(series)
    assert {one.series for one in verdicts} == {name}
    [day] = [one for one in verdicts if one.method == "share"]
    assert (day.value < day.low) if side == "low" else (day.value > day.high)


@pytest.mark.parametrize("name", MEANS)
def test_a_slow_loss_is_noticed_within_the_fortnight(name: str) -> None:
    def loses(at: int, one: str, value: float) -> float:
        return value * 0.7 if at >= 80 and one == name else value

    series = group(MEANS, 94, 5, loses)
    days = [at for at in range(81, 95) if name in {one.series for one in found(_upto(series, at))}]
    assert days


def test_a_loss_of_everything_is_noticed_of_the_total() -> None:
    series = group({"all": 5000.0}, 90, 5, lambda at, one, value: 0 if at == 89 else value)
    [total] = [DailySeries("all", None, series[0].values)]
    assert "level" in {one.method for one in found([total])}


def _upto(series: list[DailySeries], end: int) -> list[DailySeries]:
    return [DailySeries(one.name, one.group, one.values[max(0, end - 90) : end]) for one in series]


@pytest.mark.slow
def test_quiet_series_give_no_more_alarms_than_the_budget() -> None:
    """30 deployments, each for ten weeks after its first thirteen: 300 deployment-weeks at a budget of one."""
    alarms = 0
    for seed in range(30):
        series = group({**MEANS, "refund": 12.0}, 160, seed)
        last: dict[str, int] = {}
        for at in range(90, 160):
            for name in {one.series for one in found(_upto(series, at))}:
                alarms += at - last.get(name, -99) > 3
                last[name] = at
    # Chance alone would pass 1.25 times the budget in one run of thousands.
    assert alarms <= 375


def test_a_smaller_budget_gives_wider_bands() -> None:
    series = group(MEANS, 90, 9)
    wide = {(one.series, one.method): one for one in judge(series, 0.01)}
    for one in judge(series, 1.0):
        other = wide[one.series, one.method]
        assert other.low <= one.low <= one.expected <= one.high <= other.high


def test_what_is_new_or_rare_is_not_judged() -> None:
    assert judge(group(MEANS, 20, 1), 1.0) == []
    assert judge(group({"a": 1.0, "b": 0.5}, 90, 1), 1.0) == []
    assert judge([], 1.0) == []
    assert judge([DailySeries("a", None, ())], 1.0) == []
    assert judge([DailySeries("a", "g", (None,) * 90), DailySeries("b", "g", (None,) * 90)], 1.0) == []


def test_a_renamed_action_is_one_loss_and_the_others_stay_in_their_bands() -> None:
    series = group(MEANS, 90, 3, lambda at, one, value: 0 if at >= 89 and one == "cart" else value)
    assert {one.series for one in found(series)} == {"cart"}


def test_days_of_a_backfill_do_not_count() -> None:
    known = group(MEANS, 90, 3)
    holes = [
        DailySeries(one.name, one.group, tuple(None if 40 <= at < 60 else v for at, v in enumerate(one.values)))
        for one in known
    ]
    assert found(holes) == []
    assert {one.series for one in judge(holes, 1.0)} == set(MEANS)


@given(st.lists(st.floats(0, 50), max_size=80), st.floats(1e-6, 0.2))
def test_a_cutoff_grows_as_the_rate_falls(distances: list[float], rate: float) -> None:
    wide, narrow = cutoff(distances, rate / 10), cutoff(distances, rate)
    if len(distances) < 14:
        assert wide is narrow is None
    else:
        assert wide is not None and narrow is not None and wide >= narrow >= LEAST


def test_one_odd_day_in_the_past_hides_no_other() -> None:
    usual = [abs(random.Random(at).gauss(0, 1)) for at in range(60)]
    before, after = cutoff(usual, 0.001), cutoff([*usual, 60.0, 45.0], 0.001)
    assert before is not None and after is not None and after < before * 1.5


@given(st.floats(0, 1e12))
def test_the_root_scale_can_be_undone(value: float) -> None:
    assert unroot(root(value)) == pytest.approx(value, rel=1e-6, abs=1e-6)


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.integers(0, 1000)), st.one_of(st.none(), st.integers(0, 1000))), max_size=60
    )
)
def test_what_is_expected_by_share_is_the_share_of_the_days_before(days: list[tuple[int | None, int | None]]) -> None:
    own, others = [one for one, _ in days], [other for _, other in days]
    for at, expected in enumerate(share(own, others)):
        before = [(a, b) for a, b in days[max(0, at - 28) : at] if a is not None and b is not None]
        now = others[at]
        if len(before) < 14 or not now or not sum(b for _, b in before):
            assert expected is None
        else:
            assert expected == pytest.approx(now * sum(a for a, _ in before) / sum(b for _, b in before))


def hourly(days: int, seed: int, *, shift: int = 0) -> list[float]:
    """Events by the hour, none at night; in the second half the clocks of the users are `shift` hours off."""
    chance = random.Random(seed)
    counts = []
    for at in range(days * 24):
        hour = (at + (shift if at >= days * 12 else 0)) % 24
        counts.append(float(poisson(8.0 if 7 <= hour < 23 else 0.05, chance)))
    return counts


@pytest.mark.parametrize("shift", [0, 1, -1], ids=["no change", "summer time", "winter time"])
def test_nights_and_summer_time_are_no_silence(shift: int) -> None:
    counts = hourly(90, 4, shift=shift)
    for end in range(60 * 24, 90 * 24):
        told = silence(counts[:end])
        assert told is not None and not told.unusual


def test_an_outage_is_a_silence_within_hours_by_day() -> None:
    counts = hourly(60, 4)[: 59 * 24 + 10]
    told = [silence([*counts, *[0.0] * hours]) for hours in range(12)]
    assert not any(one is not None and one.unusual for one in told[:2])
    assert told[8] is not None and told[8].unusual and told[8].hours >= 8


def test_a_history_that_is_empty_or_short_says_nothing_of_silence() -> None:
    assert silence([]) is None
    assert silence([0.0] * HOURS * 12) is None
    assert silence([5.0] * HOURS * 3) is None
