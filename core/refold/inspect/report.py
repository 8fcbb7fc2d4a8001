"""The report of a time span: events, duplicates, latencies, incidents, repairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import class_row

from refold.inspect.toil import (
    BY_MACHINE,
    INTERRUPT,
    MOST_MINUTES,
    REPEATS,
    Ended,
    Toil,
    Touch,
    hands_on,
    interrupts,
    repeats,
    toil,
)
from refold.model.quantiles import quantile
from refold.postgres.rows import one_row
from refold.postgres.session import plan_by_index
from refold.postgres.snapshot import snapshot
from refold.store.incidents import ONLY_NOTICED

STAGES = ("waiting", "applying", "fresh")


@dataclass(frozen=True, slots=True)
class Latency:
    """The latency of events in one stage, seconds, within 2 %.

    Args:
        projection: name of the metric; its builds are merged.
        stage: `waiting`: from the start of the event's transaction to the start of its page; `applying`: the page;
            `fresh`: from the start of the transaction until the event could be queried.
        events: number of measured events.
    """

    projection: str
    stage: str
    events: int
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Kind:
    """Incidents of one kind that were detected in the time span.

    Args:
        number: number of incidents.
        still_open: how many of them are open.
        to_detect: average time from start to detection, seconds; None for kinds whose start is unknown.
        to_recover: average time from detection to resolution, seconds; None while all are open.
    """

    kind: str
    number: int
    still_open: int
    to_detect: float | None
    to_recover: float | None


@dataclass(frozen=True, slots=True)
class ActivityReport:
    """The numbers of a time span.

    Args:
        since: start of the span.
        until: end of the span.
        events: events that the log accepted.
        events_exact: whether they were counted; more than five thousand are estimated.
        duplicates: events that were refused because the log had them.
        conflicts: records that were rejected because the log had their id with other content.
        invalid: records that were rejected because they were not valid events.
        latencies: by metric and stage.
        incidents: by kind.
        healed: rows that reconcile healed.
        dead_letters: events that wait as dead letters now.
        toil: what incidents and commands took of people's time.
    """

    since: datetime
    until: datetime
    events: int
    events_exact: bool
    duplicates: int
    conflicts: int
    invalid: int
    latencies: list[Latency]
    incidents: list[Kind]
    healed: int
    dead_letters: int
    toil: Toil

    @property
    def duplicate_rate(self) -> float:
        """Return the share of duplicates among all accepted and duplicate events, 0 to 1."""
        offered = self.events + self.duplicates
        return self.duplicates / offered if offered else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a dict for JSON."""
        return asdict(self) | {"duplicate_rate": self.duplicate_rate}


_FIGURES = """
WITH forgotten AS (
    SELECT what, kind, number FROM refold.forgotten WHERE day >= ((now() - %(span)s) AT TIME ZONE 'UTC')::date
)
SELECT now() - %(span)s AS since, now() AS until,
       r.events, r.exact,
       (SELECT coalesce(sum(events), 0)::bigint FROM refold.duplicates WHERE at >= now() - %(span)s),
       (SELECT count(*) FROM refold.rejected WHERE answer = 'conflict' AND last_seen >= now() - %(span)s)
           + (SELECT coalesce(sum(number), 0)::bigint FROM forgotten WHERE (what, kind) = ('rejected', 'conflict')),
       (SELECT count(*) FROM refold.rejected WHERE answer = 'invalid' AND last_seen >= now() - %(span)s)
           + (SELECT coalesce(sum(number), 0)::bigint FROM forgotten WHERE (what, kind) = ('rejected', 'invalid')),
       (SELECT count(*) FROM refold.repairs WHERE repaired_at >= now() - %(span)s)
           + (SELECT coalesce(sum(number), 0)::bigint FROM forgotten WHERE what = 'repairs'),
       (SELECT count(*) FROM refold.dead_letters AS l JOIN refold.builds AS b USING (build_id)
        WHERE l.state = 'waiting' AND b.state IN ('building', 'live'))
FROM refold.recorded_since(now() - %(span)s) AS r
"""

_LATENCIES = """
SELECT b.projection, l.stage, l.bucket, sum(l.events)::bigint
FROM refold.latencies AS l
JOIN refold.builds AS b ON b.build_id = l.build_id
WHERE l.minute >= now() - %(span)s
GROUP BY b.projection, l.stage, l.bucket
ORDER BY b.projection, l.stage
"""

_INCIDENTS = """
SELECT kind, sum(number)::bigint AS number, sum(still_open)::bigint AS still_open,
       CASE WHEN kind <> ALL (%(only_noticed)s) THEN (sum(detecting) / sum(number))::float8 END AS to_detect,
       (sum(recovering) / nullif(sum(number) - sum(still_open), 0))::float8 AS to_recover
FROM (
    SELECT kind, 1 AS number, (resolved_at IS NULL)::integer AS still_open,
           extract(epoch FROM detected_at - started_at)::float8 AS detecting,
           extract(epoch FROM resolved_at - detected_at)::float8 AS recovering
    FROM refold.incidents
    WHERE detected_at >= now() - %(span)s
    UNION ALL
    SELECT kind, number, 0, detecting, recovering FROM refold.forgotten
    WHERE what = 'incidents' AND day >= ((now() - %(span)s) AT TIME ZONE 'UTC')::date
) AS incidents
GROUP BY kind
ORDER BY kind
"""


_ENDED = f"""
SELECT i.incident_id, i.kind, i.subject, i.started_at, i.detected_at, i.resolved_at,
       {BY_MACHINE} AS by_machine, i.acknowledged_at
FROM refold.incidents AS i
WHERE i.resolved_at >= now() - %(span)s - %(repeats)s
"""

_TOUCHES = "SELECT at, by, incident_id FROM refold.actions WHERE at >= now() - %(span)s"


def report(conn: psycopg.Connection, span: timedelta) -> ActivityReport:
    """Read the numbers of the time span up to now, in one snapshot.

    Args:
        conn: acts as one of `READERS`, in autocommit mode.
        span: length of the time span. A few thousand events are counted in the log, more are estimated. Latencies and
            duplicates are kept for `latency_days` (refold.settings). Deleted records count by whole days.
    """
    parameters = {"span": span, "only_noticed": sorted(ONLY_NOTICED)}
    with snapshot(conn):
        plan_by_index(conn)
        row = one_row(conn, _FIGURES, parameters)
        buckets = conn.execute(_LATENCIES, parameters).fetchall()
        with conn.cursor(row_factory=class_row(Kind)) as cursor:
            incidents = cursor.execute(_INCIDENTS, parameters).fetchall()
        ended, touches, live = _of_people(conn, span)
    since, until, events, exact, duplicates, conflicts, invalid, healed, dead_letters = row
    return ActivityReport(
        since,
        until,
        events,
        exact,
        duplicates,
        conflicts,
        invalid,
        latencies(buckets),
        incidents,
        healed,
        dead_letters,
        toil(ended, touches, since=since, events=events, projections=live),
    )


@dataclass(frozen=True, slots=True)
class Counted:
    """An incident that took a person.

    Args:
        minutes: what it took of people's time.
        recorded: whether that comes from recorded times, and not from a price.
        repeats: whether it is the same trouble again, and so toil.
    """

    incident_id: int
    kind: str
    subject: str
    resolved_at: datetime
    minutes: float
    recorded: bool
    repeats: bool


@dataclass(frozen=True, slots=True)
class ToilReport:
    """The toil of a time span, and what it is made of.

    Args:
        since: begin of the time span, UTC.
        until: its end, UTC.
        toil: the figures.
        counted: the incidents that took a person, newest first.
        idle: interrupts about nothing recorded.
        interrupt_minutes: minutes within which touches of a person are one interrupt.
        most_minutes: most minutes that an incident counts.
    """

    since: datetime
    until: datetime
    toil: Toil
    counted: list[Counted]
    idle: int
    interrupt_minutes: int = int(INTERRUPT.total_seconds() / 60)
    most_minutes: float = MOST_MINUTES


def read_toil(conn: psycopg.Connection, span: timedelta) -> ToilReport:
    """Read the toil of the time span up to now, in one snapshot.

    Args:
        conn: acts as one of `READERS`, in autocommit mode.
        span: length of the time span.
    """
    parameters = {"span": span}
    with snapshot(conn):
        plan_by_index(conn)
        since, until, events = one_row(
            conn,
            "SELECT now() - %(span)s, now(), r.events FROM refold.recorded_since(now() - %(span)s) AS r",
            parameters,
        )
        ended, touches, live = _of_people(conn, span)
    clusters = interrupts(touches)
    known = {one.incident_id for one in ended if one.resolved_at >= since}
    counted = []
    for one in sorted(ended, key=lambda ended: ended.resolved_at, reverse=True):
        if one.human and one.incident_id in known:
            minutes, recorded = hands_on(one, touches)
            again = repeats(one, ended)
            counted.append(Counted(one.incident_id, one.kind, one.subject, one.resolved_at, minutes, recorded, again))
    idle = sum(not any(touch.incident_id in known for touch in cluster) for cluster in clusters)
    figures = toil(ended, touches, since=since, events=events, projections=live)
    return ToilReport(since, until, figures, counted, idle)


def _of_people(conn: psycopg.Connection, span: timedelta) -> tuple[list[Ended], list[Touch], int]:
    """Return the incidents that ended, what people did, and the number of live projections."""
    parameters = {"span": span, "repeats": REPEATS}
    with conn.cursor(row_factory=class_row(Ended)) as cursor:
        ended = cursor.execute(_ENDED, parameters).fetchall()
    with conn.cursor(row_factory=class_row(Touch)) as cursor:
        touches = cursor.execute(_TOUCHES, parameters).fetchall()
    (live,) = one_row(conn, "SELECT count(*) FROM refold.builds WHERE state = 'live'")
    return ended, touches, live


def latencies(rows: Iterable[tuple[str, str, int, int]]) -> list[Latency]:
    """Compute quantiles from (projection, stage, bucket, events). Pure."""
    counts: dict[tuple[str, str], dict[int, int]] = {}
    for projection, stage, bucket, events in rows:
        counts.setdefault((projection, stage), {})[bucket] = events
    return [
        Latency(projection, stage, sum(of.values()), *_quantiles(of))
        for (projection, stage), of in sorted(counts.items(), key=lambda one: (one[0][0], STAGES.index(one[0][1])))
    ]


def _quantiles(counts: Mapping[int, int]) -> tuple[float, float, float]:
    p50, p95, p99 = (quantile(counts, share) or 0.0 for share in (0.5, 0.95, 0.99))
    return p50, p95, p99
