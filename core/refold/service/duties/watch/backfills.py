"""The days that do not count, because a backfill ran."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

import psycopg

from refold.model.anomaly.backfills import backfill_days
from refold.store import series as store
from refold.store.series import Series, Values, midnight


def backfilled(
    conn: psycopg.Connection, known: Sequence[Series], values: Values, first: date, last: date
) -> frozenset[date]:
    """Return the days on which a backfill ran.

    Args:
        conn: acts as refold_worker.
        known: the series.
        values: values of at least those of the kinds `all` and `old`.
        first: first day.
        last: last day.
    """
    running = [
        begin.astimezone(UTC).date() + timedelta(days=number)
        for begin, end in store.backfills(conn, midnight(first))
        for number in range((end.astimezone(UTC).date() - begin.astimezone(UTC).date()).days + 1)
    ]
    of = {one.kind: values.get(one.series_id, {}) for one in known if one.kind in ("all", "old")}
    return frozenset(running) | backfill_days(_days(of.get("old", {})), _days(of.get("all", {})), first, last)


def _days(hours: Mapping[datetime, tuple[float, object]]) -> dict[date, float]:
    found: dict[date, float] = defaultdict(float)
    for at, (value, _) in hours.items():
        found[at.astimezone(UTC).date()] += value
    return found
