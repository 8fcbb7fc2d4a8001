"""Series with a history, made without waiting for it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]
REPEATS = 5
"""Days after which chance repeats: no divisor of a fortnight, whose sums would not vary."""


def poisson(mean: float, chance: random.Random) -> int:
    """Return a random count; exact for small means, normal for great ones."""
    if mean > 200:
        return max(0, round(chance.gauss(mean, mean**0.5)))
    count, left = 0, chance.expovariate(1.0)
    while left < mean:
        count += 1
        left += chance.expovariate(1.0)
    return count


def put_history(
    admin: Connection, means: Mapping[str, float], *, days: int, seed: int = 7,
    change: Callable[[str, datetime, int], float] = lambda name, at, count: count,
) -> None:  # fmt: skip
    """Store values of actions for the days up to now, as the duty would have, and the total.

    Chance repeats every few days, counted back from today: no day is unusual by chance, whatever the date.

    Args:
        admin: the owner's connection.
        means: events an hour of each action.
        days: days of history.
        seed: of the chance.
        change: changes the count of an action in an hour.
    """
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    first = datetime.combine((now - timedelta(days=days)).date(), datetime.min.time(), UTC)
    hours = int((now - first).total_seconds() // 3600)
    admin.execute("INSERT INTO refold.watch (done, read_at) VALUES (pg_current_snapshot()::text, now())")
    totals = [0.0] * hours
    for kind, name in [("all", ""), ("old", ""), *(("action", name) for name in means)]:
        admin.execute(
            "INSERT INTO refold.series (kind, name, began_on) VALUES (%s, %s, %s)", (kind, name, first.date())
        )
        if kind != "action":
            continue
        counts = _counts(means[name], f"{seed} {name}", days + 1)[:hours]
        values = [float(change(name, first + timedelta(hours=at), count)) for at, count in enumerate(counts)]
        totals = [total + value for total, value in zip(totals, values, strict=True)]
        _put(admin, kind, name, first, values)
    _put(admin, "all", "", first, totals)


def _counts(mean: float, seed: str, days: int) -> list[int]:
    counts = []
    for left in reversed(range(days)):
        chance = random.Random(f"{seed} {left % REPEATS}")
        counts += [poisson(mean, chance) for _ in range(24)]
    return counts


def _put(admin: Connection, kind: str, name: str, first: datetime, values: list[float]) -> None:
    admin.execute(
        "INSERT INTO refold.series_values (series_id, at, value)"
        " SELECT s.series_id, %s + (v.at - 1) * interval '1 hour', v.value"
        " FROM refold.series AS s, unnest(%s::float8[]) WITH ORDINALITY AS v (value, at)"
        " WHERE s.kind = %s AND s.name = %s AND v.value > 0",
        (first, values, kind, name),
    )
