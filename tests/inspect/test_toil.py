"""Toil is counted from rows alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from refold.inspect.toil import Ended, Touch, hands_on, interrupts, toil

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


def incident(number: int, kind: str = "lag", *, at: datetime = NOON, took: float = 10, by_machine: bool = True,
             taken_after: float | None = None, subject: str = "daily__1__1") -> Ended:  # fmt: skip
    acknowledged = None if taken_after is None else at + minutes(taken_after)
    return Ended(number, kind, subject, at, at + minutes(1), at + minutes(took), by_machine, acknowledged)


def test_what_ends_by_itself_is_no_toil_however_long_it_took() -> None:
    found = toil([incident(1, took=6000)], [], since=NOON, events=10, projections=2)
    assert (found.hours, found.work_hours, found.interrupts, found.autonomy) == (0, 0, 0, 1.0)
    assert (found.machine.incidents, found.person.incidents) == (1, 0)


def test_a_decision_is_work_and_its_repetition_is_toil() -> None:
    first = incident(1, "dead_letters", at=NOON - timedelta(days=3), by_machine=True, took=30, taken_after=10)
    again = incident(2, "dead_letters", at=NOON + minutes(5), took=30, taken_after=10, subject="daily__2__7")
    alone = toil([first], [], since=NOON - timedelta(days=4), events=0, projections=0)
    assert alone.hours == 0 and alone.work_hours == pytest.approx(20 / 60)
    both = toil([first, again], [], since=NOON, events=2_000_000, projections=50)
    assert both.hours == pytest.approx(20 / 60)
    assert both.hours_per_million_events == pytest.approx(10 / 60)
    assert both.hours_per_100_projections == pytest.approx(40 / 60)
    assert both.autonomy == 0.0
    assert (alone.hours_per_million_events, alone.hours_per_100_projections) == (None, None)


@pytest.mark.parametrize(
    ("one", "touches", "expected"),
    [
        (incident(1, taken_after=2, took=30), [], (28, True)),
        (incident(1, taken_after=2, took=3000), [], (60, True)),
        (incident(1, took=600), [Touch(NOON, "ann", 1), Touch(NOON + minutes(12), "bob", 1)], (12, True)),
        (incident(1, took=600), [Touch(NOON, "ann", 1)], (5, True)),
        (incident(1, took=600), [Touch(NOON, "ann", 2)], (10, False)),
        (incident(1, "log_damage"), [], (45, False)),
        (incident(1, "canary_aborted"), [], (20, False)),
    ],
)
def test_minutes_come_from_recorded_times_or_a_price(
    one: Ended, touches: list[Touch], expected: tuple[float, bool]
) -> None:
    assert hands_on(one, touches) == expected


def test_a_corrected_file_ends_an_aborted_canary_whoever_closes_the_incident() -> None:
    one = incident(1, "canary_aborted", by_machine=True, subject="counts")
    found = toil([one], [], since=NOON, events=1, projections=1)
    assert found.autonomy == 0.0 and found.work_hours == pytest.approx(20 / 60)


def test_touches_of_a_person_within_a_quarter_of_an_hour_are_one_interrupt() -> None:
    at = [0, 10, 24, 40, 41]
    touches = [Touch(NOON + minutes(one), "ann") for one in at] + [Touch(NOON + minutes(11), "bob")]
    assert [len(one) for one in interrupts(touches)] == [3, 1, 2]
    found = toil([], touches, since=NOON, events=1, projections=1)
    assert (found.interrupts, found.autonomy) == (3, None)
    assert found.hours == pytest.approx(15 / 60)


def test_an_interrupt_about_an_incident_is_not_counted_twice() -> None:
    one = incident(1, "log_damage", by_machine=False)
    found = toil([one], [Touch(NOON + minutes(2), "ann", 1)], since=NOON, events=1, projections=1)
    assert found.hours == 0 and found.work_hours == pytest.approx(5 / 60)
