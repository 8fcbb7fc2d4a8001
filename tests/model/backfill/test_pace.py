"""How a backfill follows what live metrics feel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.model.backfill.pace import LEAST, MOST, PATIENCE_S, Pace, averaged, limit, remaining_s


def test_fresh_metrics_let_batches_grow_by_a_tenth() -> None:
    pace = Pace(1000).after_batch(0.5, 2.0, 0.0)
    assert pace == Pace(1100)
    assert Pace(MOST - 1).after_batch(1.0, 2.0, 0.0).batch == MOST
    # Also from a batch so small that a tenth of it is nothing.
    assert Pace(1).after_batch(0.0, 2.0, 0.0).batch == 2


@pytest.mark.parametrize("age", [1.1, 2.0])
def test_metrics_near_the_limit_let_them_shrink_by_a_tenth(age: float) -> None:
    assert Pace(1000).after_batch(age, 2.0, 0.0) == Pace(900)
    assert Pace(1000, late_since=7.0).after_batch(age, 2.0, 8.0) == Pace(900)
    assert Pace(LEAST).after_batch(age, 2.0, 0.0).batch == LEAST


def test_late_metrics_halve_them() -> None:
    pace = Pace(3000).after_batch(2.1, 2.0, 7.0)
    assert pace == Pace(1500, late_since=7.0)
    assert pace.after_batch(3.0, 2.0, 9.0) == Pace(750, late_since=7.0)
    assert Pace(LEAST).after_batch(3.0, 2.0, 9.0).batch == LEAST


def test_a_batch_that_waits_goes_when_metrics_have_caught_up_well() -> None:
    pace = Pace(1000)
    assert pace.may_go(2.0, 2.0, waits=False)
    assert not pace.may_go(1.1, 2.0, waits=True)
    assert pace.may_go(1.0, 2.0, waits=True)


def test_patience_counts_from_the_first_late_look_to_the_last() -> None:
    late = Pace(1000).after_batch(9.0, 2.0, 100.0)
    assert not late.looked(9.0, 2.0, 100.0 + PATIENCE_S - 1).overdue(100.0 + PATIENCE_S - 1)
    assert late.looked(9.0, 2.0, 100.0 + PATIENCE_S).overdue(100.0 + PATIENCE_S)
    assert not late.looked(1.9, 2.0, 300.0).looked(9.0, 2.0, 301.0).overdue(100.0 + PATIENCE_S)


@given(st.lists(st.floats(0, 100), max_size=50), st.integers(1, MOST))
def test_batches_stay_within_their_bounds(ages: list[float], first: int) -> None:
    pace = Pace(first)
    for at, age in enumerate(ages):
        pace = pace.after_batch(age, 2.0, float(at))
        assert min(first, LEAST) <= pace.batch <= MOST


@pytest.mark.parametrize(("usual", "told"), [(None, 2.0), (0.01, 0.1), (0.3, 0.6), (5.0, 2.0)])
def test_the_limit_that_nobody_gave(usual: float | None, told: float) -> None:
    assert limit(usual) == pytest.approx(told)


def test_the_rate_is_that_of_the_last_minute() -> None:
    assert averaged(None, 1000, 2.0) == 500.0
    rate = 500.0
    for _ in range(60):
        rate = averaged(rate, 100, 1.0)
    assert 100 < rate < 300
    assert remaining_s(1000, 500.0) == 2.0
    assert remaining_s(1000, None) is None
