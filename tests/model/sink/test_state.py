"""Steps of a sink: who may deliver and when, whatever the clock does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from refold.model.sink import state as steps
from refold.model.sink.state import LEASE, LONGEST_PAUSE, LONGEST_WAIT, SinkState

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
FIRST = SinkState(1, 1, "active", True, 7, 100)


def test_one_deliverer_at_a_time() -> None:
    held = steps.taken(FIRST, NOW, "a")
    assert steps.due(held, NOW, "a")
    assert not steps.due(held, NOW, "b")
    assert steps.due(held, NOW + LEASE, "b")
    assert steps.due(steps.let_go(held), NOW, "b")


@given(failures=st.integers(1, 60), chance=st.floats(0, 1), asked=st.none() | st.floats(-10, 1e9))
def test_the_pause_after_failures(failures: int, chance: float, asked: float | None) -> None:
    before = replace(FIRST, failures=failures - 1, failing_since=None if failures == 1 else NOW)
    after = steps.failed(before, NOW, "no", "503", retry_after=asked, chance=chance)
    assert after.retry_at is not None
    pause = after.retry_at - NOW
    assert timedelta(0) <= pause <= max(LONGEST_PAUSE, LONGEST_WAIT)
    assert asked is None or pause >= min(timedelta(seconds=max(0, asked)), LONGEST_WAIT)
    assert asked or pause <= LONGEST_PAUSE
    assert after.failing_since is not None and after.circuit_open
    if pause:
        assert not steps.due(after, NOW, "a")
    assert steps.due(after, NOW + pause, "a")


def test_pauses_double_and_are_spread() -> None:
    pauses = []
    state = FIRST
    for _ in range(12):
        state = steps.failed(state, NOW, "no", "503", chance=1.0)
        assert state.retry_at is not None
        pauses.append((state.retry_at - NOW).total_seconds())
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


def test_only_one_probe_while_the_circuit_is_open() -> None:
    open_ = steps.failed(steps.taken(FIRST, NOW, "a"), NOW, "no", "503", chance=1.0)
    later = NOW + timedelta(seconds=2)
    probing = steps.taken(open_, later, "b")
    assert not steps.due(probing, later, "a")
    closed = steps.delivered(probing, later, 5)
    assert (closed.failures, closed.retry_at, closed.error) == (0, None, None)


def test_a_clock_that_was_set_back_blocks_nobody_for_long() -> None:
    ahead = NOW + timedelta(days=400)
    assert steps.due(steps.taken(FIRST, ahead, "a"), NOW, "b")
    assert steps.due(steps.failed(FIRST, ahead, "no", "503", chance=1.0), NOW, "b")


def test_paused_and_stopped_sinks_deliver_nothing_until_resumed() -> None:
    for state in (steps.paused(FIRST), steps.stopped(FIRST, "gone", "410")):
        assert not steps.due(state, NOW + timedelta(days=1), "a")
        assert steps.due(steps.resumed(state), NOW, "a")


def test_batches_shrink_at_once_and_grow_slowly() -> None:
    small = steps.delivered(FIRST, NOW, 10, batch=3)
    assert small.batch == 3
    assert steps.delivered(small, NOW, 3).batch == 4
    assert steps.delivered(replace(FIRST, batch=900), NOW, 3).batch == steps.BATCH


STEPS: dict[str, Callable[[SinkState], SinkState]] = {
    "t": lambda state: steps.taken(state, NOW, "a"),
    "d": lambda state: steps.delivered(state, NOW, 1),
    "f": lambda state: steps.failed(state, NOW, "no", "500"),
    "s": lambda state: steps.switched(state, 9, 50),
    "c": steps.collapsed,
    "r": steps.resumed,
    "p": steps.paused,
    "o": lambda state: steps.opened(steps.opening(state, NOW, "x"), NOW, 0),
}


@given(st.lists(st.sampled_from("tdfscrpo"), max_size=30))
def test_every_step_has_the_next_number(which: list[str]) -> None:
    state = FIRST
    for one in which:
        before = state
        state = STEPS[one](state)
        assert state.number == before.number + (2 if one == "o" else 1)
        assert state.epoch >= before.epoch
        if one == "s":
            assert state.epoch > before.epoch and not state.following
