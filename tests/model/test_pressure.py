"""Levels change with hysteresis."""

from hypothesis import given
from hypothesis import strategies as st

from refold.model.pressure import Level, next_level

MARKS = {"slow": 1.0, "stop": 3.0, "back": 0.5}


def test_the_way_up_and_down() -> None:
    level = Level.fine
    seen = []
    for value in (0.0, 0.9, 1.0, 2.9, 0.6, 3.0, 2.0, 0.9, 0.5, 0.4, 3.5, 0.1):
        level = next_level(level, value, **MARKS)
        seen.append(int(level))
    assert seen == [0, 0, 1, 1, 1, 2, 2, 1, 1, 0, 2, 0]


@given(st.lists(st.floats(0, 10)))
def test_it_is_never_worse_than_the_worst_and_never_hides_it(values: list[float]) -> None:
    level = Level.fine
    for value in values:
        level = next_level(level, value, **MARKS)
        assert (level is Level.stop) >= (value >= 3)
        assert (level is Level.fine) <= (value < 1)
        assert (level is Level.fine) >= (value < 0.5)
