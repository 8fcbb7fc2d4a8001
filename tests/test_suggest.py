"""What a misspelt name may have meant."""

from __future__ import annotations

import pytest

from refold.suggest import closest, did_you_mean


@pytest.mark.parametrize(
    ("name", "meant"),
    [("dayly", "daily"), ("daily", "daily"), ("purchases_by_day", None), ("", None), ("event_count", "event_counts")],
)
def test_the_name_that_is_most_alike(name: str, meant: str | None) -> None:
    known = {"weekly": 1, "daily": 2, "event_counts": 3}
    assert closest(name, known) == meant
    assert did_you_mean(name, known) == ("" if meant is None else f" Did you mean {meant}?")


def test_how_alike_it_must_be() -> None:
    assert closest("summ", ["sum"], cutoff=0.8) == "sum"
    assert closest("summ", ["sum"], cutoff=0.9) is None
