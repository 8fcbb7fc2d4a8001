"""Latencies by the minute: how fresh events were when they could be queried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg

from refold.model.quantiles import quantile
from refold.postgres.rows import one_row
from refold.postgres.session import plan_by_index

MINUTES = 60
"""Minutes of latencies."""


@dataclass(frozen=True, slots=True)
class Minute:
    """The events that became visible in a minute, and how fresh they were.

    Args:
        minute: its start, UTC.
        events: number of events.
        p50: median time from the start of their transaction until they could be queried, seconds; None without events.
        p99: the same for the slowest hundredth.
    """

    minute: datetime
    events: int
    p50: float | None
    p99: float | None


Counts = dict[int, int]
"""Number of events by bucket: see refold.model.quantiles."""

# Minutes and builds are given one by one: each pair is found by the index, however many other builds there are.
_LATENCIES = """
SELECT m.minute, l.build_id, l.stage, l.bucket, l.events
FROM unnest(%(minutes)s::timestamptz[]) AS m (minute)
CROSS JOIN unnest(%(builds)s::bigint[]) AS b (build_id)
JOIN refold.latencies AS l ON l.minute = m.minute AND l.build_id = b.build_id
WHERE %(stage)s::text IS NULL OR l.stage = %(stage)s
"""


@dataclass(frozen=True, slots=True)
class Latencies:
    """Latencies of the last minutes, as they are kept.

    Args:
        until: the present minute, UTC.
        minutes: how many minutes there are.
        counts: events by minute, build, stage and bucket.
    """

    until: datetime
    minutes: int
    counts: Sequence[tuple[datetime, int, str, int, int]]

    def summed(self, stage: str, *, build_id: int | None = None, minutes: int | None = None) -> Counts:
        """Return the number of events by bucket."""
        since = self.until - timedelta(minutes=self.minutes if minutes is None else minutes)
        found: Counts = {}
        for minute, build, of, bucket, events in self.counts:
            if of == stage and build_id in (None, build) and minute >= since:
                found[bucket] = found.get(bucket, 0) + events
        return found

    def by_minute(self, stage: str, *, build_id: int | None = None) -> list[Minute]:
        """Return the minutes, oldest first."""
        of: dict[datetime, Counts] = {}
        for minute, build, kept_stage, bucket, events in self.counts:
            if kept_stage == stage and build_id in (None, build):
                counts = of.setdefault(minute, {})
                counts[bucket] = counts.get(bucket, 0) + events
        found = []
        for back in range(self.minutes, -1, -1):
            minute = self.until - timedelta(minutes=back)
            counts = of.get(minute, {})
            found.append(Minute(minute, sum(counts.values()), quantile(counts, 0.5), quantile(counts, 0.99)))
        return found

    def heat(self, stage: str, *, build_id: int | None = None) -> list[tuple[int, int, int]]:
        """Return (minutes ago, bucket, events) of all cells of a heat map."""
        found: dict[tuple[int, int], int] = {}
        for minute, build, of, bucket, events in self.counts:
            if of == stage and build_id in (None, build):
                at = (round((self.until - minute).total_seconds() / 60), bucket)
                found[at] = found.get(at, 0) + events
        return [(ago, bucket, events) for (ago, bucket), events in sorted(found.items())]


def latencies(
    conn: psycopg.Connection, build_ids: Sequence[int], *, minutes: int = MINUTES, stage: str | None = None
) -> Latencies:
    """Return the latencies of some builds in the last minutes.

    Args:
        conn: may act as refold_observer.
        build_ids: the builds.
        minutes: how many minutes.
        stage: only those of a stage.
    """
    with conn.transaction():
        plan_by_index(conn)
        (until,) = one_row(conn, "SELECT date_trunc('minute', clock_timestamp())")
        every = [until - timedelta(minutes=back) for back in range(minutes + 1)]
        parameters = {"minutes": every, "builds": list(build_ids), "stage": stage}
        rows = conn.execute(_LATENCIES.encode(), parameters).fetchall()
    return Latencies(until, minutes, rows)


def together(conn: psycopg.Connection, *, minutes: int, stage: str = "fresh") -> Counts:
    """Return the number of events of all live builds by bucket; nobody waits for those of candidates.

    Args:
        conn: may act as refold_observer.
        minutes: how many minutes.
        stage: the stage.
    """
    rows = conn.execute(
        """
        SELECT bucket, sum(events)::bigint FROM refold.latencies
        WHERE minute >= (SELECT clock_timestamp() - make_interval(mins => %s)) AND stage = %s
          AND build_id IN (SELECT build_id FROM refold.builds WHERE state = 'live')
        GROUP BY bucket
        """,
        (minutes, stage),
    ).fetchall()
    return dict(rows)
