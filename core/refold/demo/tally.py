"""The shop's own count of the expected metrics, in plain Python and without a database. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import NamedTuple

from refold.demo.shop import Step

FUNNEL = ("view", "cart", "purchase")


class Row(NamedTuple):
    """A step as the metrics must show it: user, action and time."""

    user: str | None
    action: str
    at: datetime


class Count(NamedTuple):
    """Number of events and of different users for an action on a day."""

    events: int
    users: int


@dataclass(frozen=True, slots=True)
class Tally:
    """The expected metrics.

    Args:
        rows: each step, by id.
        counts: by day and action.
        active: number of different users, by day.
        weekly: number of different users, by the Monday of the week, for weeks with users.
        monthly: the same, by the first day of the month.
        weeks: pairs of a user and a week with an event of that user.
        first_seen: the first day of each user.
        levels: the level of each user in the funnel: 0 none, 1 view, 2 cart, 3 purchase.
    """

    rows: dict[str, Row]
    counts: dict[tuple[date, str], Count]
    active: dict[date, int]
    weekly: dict[date, int]
    monthly: dict[date, int]
    weeks: set[tuple[str, date]]
    first_seen: dict[str, date]
    levels: dict[str, int]


def tally(steps: Iterable[Step]) -> Tally:
    """Count each step once, however its deliveries arrived, and return the expected metrics."""
    # Steps in the same millisecond count in the order of the funnel.
    ordered = sorted(steps, key=lambda step: (step.at, FUNNEL.index(step.action)))
    events: Counter[tuple[date, str]] = Counter()
    users: defaultdict[tuple[date, str], set[str]] = defaultdict(set)
    active: defaultdict[date, set[str]] = defaultdict(set)
    weeks: set[tuple[str, date]] = set()
    months: set[tuple[str, date]] = set()
    first_seen: dict[str, date] = {}
    levels: dict[str, int] = {}
    for step in ordered:
        today = step.at.date()
        events[today, step.action] += 1
        users[today, step.action] |= {step.user} if step.user else set()
        active[today] |= {step.user} if step.user else set()
        if step.user is None:
            continue
        weeks.add((step.user, today - timedelta(days=today.weekday())))
        months.add((step.user, today.replace(day=1)))
        first_seen.setdefault(step.user, today)
        # In order of time, the next step wanted is the next level; the day is shorter than the funnel's window.
        level = levels.setdefault(step.user, 0)
        if level < len(FUNNEL) and step.action == FUNNEL[level]:
            levels[step.user] = level + 1
    return Tally(
        {step.id: Row(step.user, step.action, step.at) for step in ordered},
        {key: Count(number, len(users[key])) for key, number in events.items()},
        {today: len(seen) for today, seen in active.items()},
        dict(Counter(week for _, week in weeks)),
        dict(Counter(month for _, month in months)),
        weeks,
        first_seen,
        levels,
    )
