"""The present values of the metrics, read as an analyst reads them."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from datetime import date

import psycopg

from refold.postgres.rows import one_row

WINDOW_S = 1.0
"""Seconds over which the worst freshness is shown."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The metrics of a day.

    Args:
        active: number of different users with an event.
        counts: number of events, by action.
        reached: numbers of users who reached at least view, cart and purchase.
    """

    active: int
    counts: dict[str, int]
    reached: tuple[int, int, int]


def figures(conn: psycopg.Connection, day: date) -> Figures:
    """Return the metrics of a day."""
    active = conn.execute("SELECT users FROM metrics.active_users WHERE day = %s", (day,)).fetchone()
    counts = conn.execute(
        "SELECT action, sum(events)::bigint FROM metrics.event_counts WHERE day = %s GROUP BY action", (day,)
    ).fetchall()
    levels: dict[int, int] = dict(
        conn.execute("SELECT level, count(*) FROM metrics.funnel_stages GROUP BY level").fetchall()
    )
    view, cart, purchase = (sum(n for level, n in levels.items() if level >= least) for least in (1, 2, 3))
    return Figures(0 if active is None else active[0], dict(counts), (view, cart, purchase))


def behind(conn: psycopg.Connection) -> int:
    """Return the unread events of the metric with the greatest lag."""
    return int(one_row(conn, "SELECT coalesce(max(lag_events), 0) FROM metrics.freshness")[0])


class Freshness:
    """Samples the lag of each metric, and keeps the worst.

    Args:
        conn: an analyst's connection, in autocommit mode.
    """

    def __init__(self, conn: psycopg.Connection) -> None:
        self._conn = conn
        self._samples: deque[tuple[float, dict[str, float]]] = deque()
        self.worst: dict[str, float] = {}

    def sample(self) -> None:
        """Sample the lag of each metric once."""
        rows = self._conn.execute("SELECT metric, lag_seconds FROM metrics.freshness ORDER BY metric").fetchall()
        lags = {str(metric): float(seconds) for metric, seconds in rows}
        now = time.monotonic()
        self._samples.append((now, lags))
        while self._samples[0][0] < now - WINDOW_S:
            self._samples.popleft()
        for metric, seconds in lags.items():
            self.worst[metric] = max(self.worst.get(metric, 0.0), seconds)

    def recent(self) -> dict[str, float]:
        """Return the worst lag of the last second by metric, in seconds."""
        return {metric: max(lags.get(metric, 0.0) for _, lags in self._samples) for metric in self._samples[-1][1]}
