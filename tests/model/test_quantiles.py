"""Quantiles from buckets: as close as promised, whatever the durations, and additive."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.model.quantiles import ACCURACY, SHORTEST, bucket, middle, quantile

durations = st.floats(min_value=SHORTEST, max_value=3e7)


@given(durations)
def test_a_bucket_stands_for_what_is_in_it(seconds: float) -> None:
    assert middle(bucket(seconds)) == pytest.approx(seconds, rel=ACCURACY * 1.0001)


@given(st.lists(durations, min_size=1, max_size=200), st.sampled_from([0.0, 0.5, 0.95, 0.99, 1.0]))
def test_quantiles(given: list[float], share: float) -> None:
    exact = sorted(given)[int(share * (len(given) - 1))]
    found = quantile(Counter(map(bucket, given)), share)
    assert found == pytest.approx(exact, rel=ACCURACY * 1.0001)


def test_what_is_no_duration() -> None:
    assert bucket(0.0) == bucket(-5.0) == bucket(SHORTEST)
    assert quantile({}, 0.5) is None
