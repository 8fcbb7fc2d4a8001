"""Days on which somebody ingested history: they say nothing about what happens now. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from statistics import median

BACKFILL = 100, 3.0, 0.05
"""A day with more old events than this, than so many times the usual, and than this part of all is a backfill."""


def backfill_days(old: Mapping[date, float], new: Mapping[date, float], first: date, last: date) -> frozenset[date]:
    """Return the days with far more old events than usual: somebody ingested history.

    Args:
        old: old events of each day.
        new: the other events of each day.
        first: first day.
        last: last day.
    """
    least, times, part = BACKFILL
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    usual = median(old.get(day, 0.0) for day in days) if days else 0.0
    return frozenset(
        day
        for day in days
        if old.get(day, 0.0) > max(least, times * usual)
        and old.get(day, 0.0) > part * (old.get(day, 0.0) + new.get(day, 0.0))
    )
