"""The independent count, on a handful of events that were counted by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

from chaos.oracle import Event, daily, funnel, graded, paths, spending, visitors


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
