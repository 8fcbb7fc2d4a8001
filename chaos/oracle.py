"""The metrics once more, in plain Python over the producers' own files: no SQL, and nothing of refold."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from chaos import journal

Rows = dict[tuple[Any, ...], tuple[Any, ...]]
"""The rows of a metric, by its key."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event, with its values as Postgres gives them.

    Args:
        poison: `number` is none.
        weight: the divisor of what is divided.
        unreadable: it holds what Python cannot read.
        place: its transaction and position, the order of the log.
        label: tells it from others with its id.
    """

    id: str
    user: str
    action: str
    ts: datetime
    amount: Decimal | None
    poison: bool = False
    weight: int | None = None
    unreadable: bool = False
    place: tuple[int, int] = (0, 0)
    label: str = ""

    @classmethod
    def of(cls, event: journal.Event) -> Event:
        metadata = event["metadata"]
        amount = metadata.get("amount")
        return cls(
            event["id"],
            event["user_id"],
            event["action"],
            datetime.fromisoformat(event["ts"]),
            None if amount is None else Decimal(amount),
            poison="number" in metadata,
            weight=metadata.get("weight"),
            unreadable="smuggled" in metadata,
            label=metadata["label"],
        )

    @property
    def day(self) -> date:
        return self.ts.astimezone(UTC).date()

    @property
    def month(self) -> datetime:
        return self.ts.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _groups(events: Iterable[Event], key: Callable[[Event], tuple[Any, ...]]) -> dict[tuple[Any, ...], list[Event]]:
    groups: dict[tuple[Any, ...], list[Event]] = defaultdict(list)
    for event in events:
        groups[key(event)].append(event)
    return groups


def purchases(events: Iterable[Event]) -> Rows:
    return {(e.id,): (e.user, e.ts, e.amount) for e in events if e.action == "purchase"}


def steps(events: Iterable[Event]) -> Rows:
    return {(e.id,): (e.user, e.action, e.ts, e.amount, e.weight) for e in events}


def spending(events: Iterable[Event]) -> Rows:
    bought = _groups((e for e in events if e.action == "purchase"), lambda e: (e.user,))
    return {
        key: (len(group), sum((e.amount or Decimal(0) for e in group), Decimal(0)), max(e.ts for e in group))
        for key, group in bought.items()
    }


def daily(events: Iterable[Event]) -> Rows:
    rows: Rows = {}
    for key, group in _groups(events, lambda e: (e.day, e.action)).items():
        amounts = [e.amount for e in group if e.amount is not None]
        rows[key] = (len(group), sum(amounts, Decimal(0)) if amounts else None, min(e.ts for e in group))
    return rows


def visitors(events: Iterable[Event]) -> Rows:
    return {k: (len(g), len({e.user for e in g})) for k, g in _groups(events, lambda e: (e.day,)).items()}


def funnel(events: Iterable[Event]) -> Rows:
    return {key: (_level(group),) for key, group in _groups(events, lambda e: (e.user,)).items()}


def _level(events: list[Event]) -> int:
    """The longest chain of view, cart, purchase within a day of its first; any view may be the first."""
    times = {step: sorted(e.ts for e in events if e.action == step) for step in ("view", "cart", "purchase")}
    best = 0
    for first in times["view"]:
        level, at = 1, first
        for step in ("cart", "purchase"):
            place = bisect_left(times[step], at)
            if place == len(times[step]) or times[step][place] > first + timedelta(days=1):
                break
            following = times[step][place]
            level, at = level + 1, following
        best = max(best, level)
    return best


def _grade(event: Event) -> str:
    return "big" if (event.amount or 0) >= 100 else "small"


def graded(events: Iterable[Event]) -> Rows:
    return {(e.id,): (e.user, e.ts, _grade(e)) for e in events if not e.unreadable}


def grades(events: Iterable[Event]) -> Rows:
    groups = _groups((e for e in events if not e.unreadable), lambda e: (_grade(e),))
    return {key: (len(group), len({e.user for e in group})) for key, group in groups.items()}


def paths(events: Iterable[Event]) -> Rows:
    return {
        key: ([e.action for e in sorted(group, key=lambda e: (e.ts, e.id))],)
        for key, group in _groups(events, lambda e: (e.user,)).items()
    }


def by_action(events: Iterable[Event]) -> Rows:
    return {key: (len(group),) for key, group in _groups(events, lambda e: (e.action,)).items()}


def paid(events: Iterable[Event]) -> Rows:
    return by_action(e for e in events if e.amount is not None)


def by_month(events: Iterable[Event]) -> Rows:
    groups = _groups(events, lambda e: (e.month, e.action))
    return {key: (len(group), len({e.user for e in group})) for key, group in groups.items()}


def poisoned(events: Iterable[Event]) -> Rows:
    groups = _groups((e for e in events if not e.poison), lambda e: (e.action,))
    return {key: (len(group), None) for key, group in groups.items()}


def _divisible(events: Iterable[Event]) -> dict[tuple[Any, ...], list[Event]]:
    """The purchases of each user, less each that makes the divisor 0 next to those before it in the log."""
    bought = _groups((e for e in events if e.action == "purchase"), lambda e: (e.user,))
    kept: dict[tuple[Any, ...], list[Event]] = defaultdict(list)
    for key, group in bought.items():
        divisor = 0
        for event in sorted(group, key=lambda e: e.place):
            if divisor + (event.weight or 0) != 0:
                divisor += event.weight or 0
                kept[key].append(event)
    return kept


def _price(group: list[Event]) -> Decimal:
    amount = sum((e.amount or Decimal(0) for e in group), Decimal(0))
    return (amount / sum(e.weight or 0 for e in group)).quantize(Decimal("0.01"), ROUND_HALF_UP)


def shares(events: Iterable[Event]) -> Rows:
    return {key: (len(group), _price(group)) for key, group in _divisible(events).items()}


def ratios(events: Iterable[Event]) -> Rows:
    return {
        key: (min(group, key=lambda e: (e.ts, e.id)).id, _price(group)) for key, group in _divisible(events).items()
    }


def left_out(events: list[Event]) -> dict[str, set[str]]:
    """The ids of the events that each metric must leave out, and no others."""
    divided = {e.id for group in _divisible(events).values() for e in group}
    indivisible = {e.id for e in events if e.action == "purchase"} - divided
    return {
        "poisoned": {e.id for e in events if e.poison},
        "graded": {e.id for e in events if e.unreadable},
        "shares": indivisible,
        "ratios": indivisible,
    }


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric and what it must be.

    Args:
        columns: of its view, the key first.
        key: how many of them are the key.
        rows: computes it.
    """

    columns: tuple[str, ...]
    key: int
    rows: Callable[[Iterable[Event]], Rows]


_SPENDING = Metric(("user_id", "purchases", "amount", "last_at"), 1, spending)
_DAILY = Metric(("day", "action", "events", "amount", "first_at"), 2, daily)
_VISITORS = Metric(("day", "events", "users"), 1, visitors)
_PURCHASES = Metric(("event_id", "user_id", "ts", "amount"), 1, purchases)
METRICS: dict[str, Metric] = {
    "steps": Metric(("event_id", "user_id", "action", "ts", "amount", "weight"), 1, steps),
    "purchases": _PURCHASES,
    "spending": _SPENDING,
    "daily": _DAILY,
    "visitors": _VISITORS,
    "funnel": Metric(("user_id", "level"), 1, funnel),
    "graded": Metric(("event_id", "user_id", "ts", "grade"), 1, graded),
    "grades": Metric(("grade", "events", "users"), 1, grades),
    "exposed_purchases": _PURCHASES,
    "exposed_spending": _SPENDING,
    "exposed_daily": _DAILY,
    "exposed_visitors": _VISITORS,
    "exposed_paths": Metric(("user_id", "path"), 1, paths),
    "shares": Metric(("user_id", "purchases", "price"), 1, shares),
    "ratios": Metric(("user_id", "first_purchase", "price"), 1, ratios),
    "poisoned": Metric(("action", "events", "total"), 1, poisoned),
}
CHANGING: dict[tuple[str, ...], Metric] = {
    ("action", "events"): Metric(("action", "events"), 1, by_action),
    ("month", "action", "events", "users"): Metric(("month", "action", "events", "users"), 2, by_month),
}
"""`changing` in its variants, told apart by their columns."""
CANARIED: dict[str, Callable[[Iterable[Event]], Rows]] = {"all": by_action, "paid": paid}
"""`canaried` in its variants, which have the same columns."""
