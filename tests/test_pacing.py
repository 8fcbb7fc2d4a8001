"""Expensive builds are taken less often, and hold up no other."""

from __future__ import annotations

import math

from refold.builds.build import Build
from refold.worker.pacing import Pacing


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def build(number: int) -> Build:
    """A build; nothing but its number matters."""
    return Build(**dict.fromkeys(Build.__dataclass_fields__) | {"build_id": number})


def paced() -> tuple[Pacing, Clock]:
    clock = Clock()
    return Pacing(clock, free=1.0, share=3.0, longest=10.0), clock


def test_a_cheap_page_costs_no_rest() -> None:
    pacing, _ = paced()
    pacing.took(1, 1.0, full=False)
    assert pacing.due([build(1)]) == [build(1)]
    assert pacing.wait() == math.inf


def test_an_expensive_page_costs_its_build_a_rest_in_proportion() -> None:
    pacing, clock = paced()
    pacing.took(1, 3.0, full=False)
    assert pacing.due([build(1), build(2)]) == [build(2)]
    assert pacing.wait() == 6.0
    clock.now += 5.9
    assert pacing.due([build(1)]) == []
    clock.now += 0.1
    assert pacing.due([build(1)]) == [build(1)]
    assert pacing.wait() == math.inf, "it has rested: there is nothing to wake up for"


def test_a_rest_has_an_end_whatever_the_page_took() -> None:
    pacing, _ = paced()
    pacing.took(1, 1000.0, full=False)
    assert pacing.wait() == 10.0


def test_a_backlog_goes_on() -> None:
    pacing, _ = paced()
    pacing.took(1, 3.0, full=False)
    pacing.took(1, 3.0, full=True)
    assert pacing.due([build(1)]) == [build(1)]


def test_the_next_to_have_rested_is_the_one_to_wake_up_for() -> None:
    pacing, _ = paced()
    pacing.took(1, 4.0, full=False)
    pacing.took(2, 2.0, full=False)
    assert pacing.wait() == 3.0
