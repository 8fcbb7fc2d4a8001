"""The independent count, on a handful of events that were counted by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

from chaos.oracle import Event, daily, funnel, graded, grades, left_out, paths, ratios, shares, spending, visitors


def event(number: int, user: str, action: str, ts: str, amount: str | None = None) -> Event:
    return Event(f"e{number}", user, action, datetime.fromisoformat(ts), None if amount is None else Decimal(amount))


EVENTS = [
    event(1, "ann", "view", "2026-01-01T10:00:00+00:00"),
    event(2, "ann", "purchase", "2026-01-02T09:00:00+00:00", "100.00"),
    event(3, "ann", "cart", "2026-01-02T00:30:00+01:00"),
    event(4, "bob", "cart", "2026-01-01T10:00:00+00:00"),
    event(5, "bob", "purchase", "2026-01-01T11:00:00+00:00", "99.99"),
    event(6, "eve", "view", "2026-01-01T10:00:00+00:00"),
    event(7, "eve", "cart", "2026-01-03T10:00:00+00:00"),
]


def test_days_are_days_of_utc() -> None:
    rows = daily(EVENTS)
    assert rows[date(2026, 1, 1), "cart"] == (2, None, datetime(2026, 1, 1, 10, tzinfo=UTC))
    assert rows[date(2026, 1, 2), "purchase"][:2] == (1, Decimal("100.00"))
    assert visitors(EVENTS)[(date(2026, 1, 1),)] == (5, 3)


def test_a_funnel_ends_with_its_window() -> None:
    assert funnel(EVENTS) == {("ann",): (3,), ("bob",): (0,), ("eve",): (1,)}


def test_rows_of_users_and_of_events() -> None:
    assert spending(EVENTS)["ann",] == (1, Decimal("100.00"), datetime(2026, 1, 2, 9, tzinfo=UTC))
    assert graded(EVENTS)["e2",][2] == "big"
    assert graded(EVENTS)["e5",][2] == "small"
    assert paths(EVENTS)["ann",] == (["view", "cart", "purchase"],)


def bought(number: int, user: str, weight: int, amount: str = "10.00") -> Event:
    one = event(number, user, "purchase", f"2026-01-01T10:00:{60 - number}+00:00", amount)
    return replace(one, weight=weight, place=(7, number))


def test_who_makes_the_divisor_0_is_left_out_next_to_those_before_it_in_the_log() -> None:
    events = [
        *(bought(1, "ann", 1, "2.50"), bought(2, "ann", -1), bought(3, "ann", 3, "3.00")),
        *(bought(4, "bob", 0), bought(5, "eve", 8, "1.00")),
    ]
    for given in (events, events[::-1]):
        assert left_out(given)["shares"] == left_out(given)["ratios"] == {"e2", "e4"}
        # 5.50 / 4 is 1.375: half a cent counts as one.
        assert shares(given) == {("ann",): (2, Decimal("1.38")), ("eve",): (1, Decimal("0.13"))}
        # The first in time is the last in the log.
        assert ratios(given) == {("ann",): ("e3", Decimal("1.38")), ("eve",): ("e5", Decimal("0.13"))}


def test_what_nobody_can_read_has_no_grade() -> None:
    events = [*EVENTS, replace(event(8, "eve", "view", "2026-01-03T10:00:00+00:00"), unreadable=True)]
    assert left_out(events)["graded"] == {"e8"}
    assert graded(events) == graded(EVENTS) and grades(events) == grades(EVENTS)
    assert funnel(events).keys() == funnel(EVENTS).keys()
