"""The schedule is a function of the seed."""

from __future__ import annotations

from itertools import pairwise

from chaos.campaign import plan
from chaos.faults import FAULTS, ROOMS
from chaos.schedule import EXPOSED, ROOMS_QUIET_S, schedule


def test_the_same_seed_gives_the_same_faults() -> None:
    assert schedule(7, 10, tuple(FAULTS)) == schedule(7, 10, tuple(FAULTS))
    assert schedule(7, 10, tuple(FAULTS)) != schedule(8, 10, tuple(FAULTS))


def test_a_longer_campaign_begins_as_a_shorter_one() -> None:
    short = plan(7, 2)
    assert plan(7, 10)[: len(short)] == short


def test_three_minutes_touch_every_room_whatever_the_seed() -> None:
    for seed in range(300):
        assert {step.fault for step in plan(seed, 3)} >= set(ROOMS)


def test_a_minute_has_a_purge_an_erasure_and_a_segment_that_is_lost_whatever_the_seed() -> None:
    for seed in range(300):
        first, *others = [step for step in plan(seed, 1) if step.fault in ROOMS]
        assert (first.fault, first.at) == ("purge", ROOMS_QUIET_S)
        assert {step.fault for step in others} >= {"erasure", "segment lost"}


def test_what_goes_on_in_rooms_does_not_change_the_faults() -> None:
    assert [step for step in plan(7, 10) if step.fault in FAULTS] == schedule(7, 10, tuple(FAULTS))


def test_every_kind_happens_before_any_happens_twice() -> None:
    steps = schedule(7, 10, tuple(FAULTS))
    assert {step.fault for step in steps[: len(FAULTS)]} == set(FAULTS)


def test_faults_come_in_order_and_within_the_time() -> None:
    for seed in range(50):
        steps = schedule(seed, 3, tuple(FAULTS))
        assert all(before.at < after.at for before, after in pairwise(steps))
        assert steps[-1].at < 180


def test_witnesses_are_never_tampered_with() -> None:
    tampered = {s.parameters["projection"] for s in schedule(7, 500, tuple(FAULTS)) if s.fault == "tampered"}
    assert tampered == set(EXPOSED)
