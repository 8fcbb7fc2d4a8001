"""How many events an erasure changes at once, while which no metric goes on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from refold.engine.erasure.run import HELD_S, PORTION, Portion


def sizes(fixed_s: float, each_s: float, number: int) -> list[tuple[int, float]]:
    """The portions of an erasure in which each takes some time, and each event some more: events and seconds."""
    found, portion = [], Portion()
    for _ in range(number):
        seconds = fixed_s + each_s * portion.events
        found.append((portion.events, seconds))
        portion = portion.after(seconds)
    return found


def test_a_portion_takes_no_longer_than_metrics_may_stand_still() -> None:
    found = sizes(0.05, 0.01, 40)
    assert max(seconds for _, seconds in found) <= HELD_S + 0.01
    assert found[-1][0] >= 90


def test_what_each_portion_reads_is_at_most_half_of_its_time() -> None:
    found = sizes(10.0, 0.1, 40)
    assert max(seconds for _, seconds in found) <= 2 * 10.1 + 0.1
    assert found[-1][0] >= 95


def test_quick_ones_are_bounded() -> None:
    assert sizes(0.0, 0.0, 20)[-1][0] == PORTION


@given(st.lists(st.floats(0, 1e6), max_size=30))
def test_there_is_always_something_to_do(times: list[float]) -> None:
    portion = Portion()
    for seconds in times:
        portion = portion.after(seconds)
        assert 1 <= portion.events <= PORTION
