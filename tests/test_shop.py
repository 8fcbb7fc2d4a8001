"""The demo's shop: the same every time, with everything in it that can happen to events on their way."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from pydantic import ValidationError

from refold.demo.shop import DAY_S, MIDNIGHT, TODAY, Action, Day, Delivery, Step, day, train
from refold.demo.tally import Count, tally
from refold.model.event.source_event import Answer, SourceEvent


@pytest.fixture(scope="module")
def friday() -> Day:
    return day(1, 3_000)


def of(friday: Day, fate: Answer) -> list[tuple[int, Delivery]]:
    return [(at, one) for at, one in enumerate(friday.deliveries) if one.fate is fate]


def test_the_same_seed_gives_the_same_day_and_another_seed_another(friday: Day) -> None:
    assert day(1, 3_000) == friday
    assert day(2, 3_000) != friday


@pytest.mark.parametrize("deliveries", [200, 501, 3_000])
def test_exactly_so_many_deliveries_arrive_in_order_of_arrival(deliveries: int) -> None:
    made = day(7, deliveries)
    arrivals = [one.at for one in made.deliveries]
    assert len(arrivals) == deliveries
    assert arrivals == sorted(arrivals)
    assert arrivals[0] >= 0
    assert arrivals[-1] < DAY_S
    assert {one.fate for one in made.deliveries} == set(Answer)


def test_every_step_is_delivered_once_as_new(friday: Day) -> None:
    ids = [step.id for step in friday.steps]
    assert len(set(ids)) == len(ids)
    assert sorted(ids) == sorted(one.event["id"] for _, one in of(friday, Answer.accepted))


def test_what_is_delivered_says_what_happened(friday: Day) -> None:
    steps = {step.id: step for step in friday.steps}
    for _, one in of(friday, Answer.accepted):
        event = SourceEvent.model_validate(one.event)
        step = steps[event.id]
        assert (event.user_id, event.action, event.ts) == (step.user, step.action, step.at)
        assert one.late == (one.at - (step.at - MIDNIGHT).total_seconds() > 600)


def test_duplicates_repeat_an_earlier_delivery(friday: Day) -> None:
    first = {one.event["id"]: (at, one.event) for at, one in of(friday, Answer.accepted)}
    repeated = of(friday, Answer.duplicate)
    assert len(repeated) == 3_000 // 25
    for at, one in repeated:
        before, event = first[one.event["id"]]
        assert before < at
        assert event == one.event


@pytest.mark.parametrize("seed", range(10))
def test_conflicts_contradict_an_earlier_delivery(seed: int) -> None:
    made = day(seed, 500)
    first = {one.event["id"]: (at, one.event) for at, one in of(made, Answer.accepted)}
    for at, one in of(made, Answer.conflict):
        before, event = first[one.event["id"]]
        assert before < at
        assert SourceEvent.model_validate(one.event) != SourceEvent.model_validate(event)


def test_invalid_ones_are_no_events(friday: Day) -> None:
    for _, one in of(friday, Answer.invalid):
        with pytest.raises(ValidationError):
            SourceEvent.model_validate(one.event)


def test_some_come_late_out_of_order_and_from_yesterday(friday: Day) -> None:
    happened = [SourceEvent.model_validate(one.event).ts for _, one in of(friday, Answer.accepted)]
    assert any(later < earlier for earlier, later in pairwise(happened))
    assert any(one.late for _, one in of(friday, Answer.accepted))
    assert {at.date() for at in happened} == {TODAY, TODAY - timedelta(days=1)}


def test_browsers_and_phones_write_time_differently_and_some_visitors_are_anonymous(friday: Day) -> None:
    accepted = [one.event for _, one in of(friday, Answer.accepted)]
    assert {type(event["ts"]) for event in accepted} == {str, int}
    assert {type(event["user_id"]) for event in accepted} == {str, type(None)}
    assert {event["action"] for event in accepted} == {"view", "cart", "purchase"}


def test_users_drop_off_on_the_way_to_a_purchase(friday: Day) -> None:
    levels = list(tally(friday.steps).levels.values())
    reached = [sum(level >= least for level in levels) for least in range(4)]
    assert reached == sorted(set(reached), reverse=True)
    assert reached[3] > 0


def test_trains_bring_late_events_that_no_other_brought(friday: Day) -> None:
    first, second = train(1, 1, 300), train(1, 2, 300)
    assert len(first.deliveries) == 300
    assert all(one.late and one.fate is Answer.accepted for one in first.deliveries)
    assert train(1, 1, 300) == first
    ids = [step.id for made in (friday, first, second) for step in made.steps]
    assert len(set(ids)) == len(ids)


def step(name: str, user: str | None, action: Action, second: int, *, days: int = 0) -> Step:
    return Step(name, user, action, datetime(2025, 11, 28, 12, tzinfo=UTC) + timedelta(days=days, seconds=second), {})


def test_the_tally_counts_as_one_would_by_hand() -> None:
    counted = tally(
        [
            step("a", "ann", "purchase", 3),
            step("b", "ann", "view", 1),
            step("c", "ann", "cart", 1),  # in the same instant as the view
            step("d", "bob", "cart", 5),  # before he looked
            step("e", "bob", "view", 6),
            step("f", None, "view", 7),
            step("g", "bob", "view", 8, days=-1),
            step("h", "cy", "purchase", 9),
            step("i", None, "view", 1, days=1),
        ]
    )
    yesterday, tomorrow = TODAY - timedelta(days=1), TODAY + timedelta(days=1)
    assert counted.levels == {"ann": 3, "bob": 2, "cy": 0}
    assert counted.active == {TODAY: 3, yesterday: 1, tomorrow: 0}
    assert counted.first_seen == {"ann": TODAY, "bob": yesterday, "cy": TODAY}
    assert counted.counts == {
        (yesterday, "view"): Count(1, 1),
        (TODAY, "view"): Count(3, 2),
        (TODAY, "cart"): Count(2, 2),
        (TODAY, "purchase"): Count(2, 2),
        (tomorrow, "view"): Count(1, 0),
    }
    assert counted.rows["f"] == (None, "view", datetime(2025, 11, 28, 12, 0, 7, tzinfo=UTC))
