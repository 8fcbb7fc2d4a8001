"""Functions that rest now and then, so that other threads have their turn."""

import pytest

from refold.model.projection.cooperative import REST_S, WORK_S, gentle


@pytest.mark.parametrize(("takes", "rests"), [(WORK_S / 10, 1), (WORK_S, 10)])
def test_it_rests_when_it_has_worked_for_long_and_says_the_same(
    monkeypatch: pytest.MonkeyPatch, takes: float, rests: int
) -> None:
    now = 1.0
    slept: list[float] = []
    monkeypatch.setattr("refold.model.projection.cooperative.time.monotonic", lambda: now)
    monkeypatch.setattr("refold.model.projection.cooperative.time.sleep", slept.append)

    def double(number: int) -> int:
        nonlocal now
        now += takes
        return 2 * number

    rested = gentle(double)
    assert [rested(number) for number in range(10)] == [2 * number for number in range(10)]
    assert slept == [REST_S] * rests
