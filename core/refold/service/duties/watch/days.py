"""Judging a day that is over: which series had an unusual one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, date, timedelta

import psycopg

from refold.model.anomaly.delays import skew
from refold.model.anomaly.judge import DailySeries, Verdict, judge
from refold.service.duties.findings import DutyFinding
from refold.service.duties.watch.backfills import backfilled
from refold.service.duties.watch.findings import muted_now, record
from refold.store import series as store
from refold.store.series import KEPT, Series, Values, midnight, number_of

SLACK_S = 10.0
"""Added to delays before they are judged: a few seconds more are never unusual."""


def judge_day(conn: psycopg.Connection, day: date, budget: float) -> None:
    """Judge a day that is over, once.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        day: the day (UTC).
        budget: false alarms a week that are allowed; with 0 nothing is unusual.
    """
    first = day - KEPT + timedelta(days=1)
    known = store.every(conn)
    values = store.hours(conn, midnight(first), midnight(day + timedelta(days=1)))
    left_out = backfilled(conn, known, values, first, day)
    with conn.transaction():
        if budget > 0 and day not in left_out:
            found, judged = unusual(known, values, first, day, left_out, budget)
            muted = muted_now(conn, known)
            record(conn, known, [one for one in found if number_of(one.subject) not in muted], judged)
        store.judged(conn, day)


def unusual(
    known: Sequence[Series],
    values: Values,
    first: date,
    day: date,
    left_out: frozenset[date],
    budget: float,
) -> tuple[list[DutyFinding], set[str]]:
    """Return what is unusual on a day, and the subjects that were judged. Pure.

    Args:
        known: the series.
        values: values and delays by series and hour.
        first: first day of the values.
        day: the day to judge.
        left_out: days that do not count, because a backfill ran.
        budget: false alarms a week that are allowed.
    """
    daily: list[DailySeries] = []
    subjects: dict[str, tuple[str, Series]] = {}
    for one in known:
        if one.kind == "old" or one.learns_until > day:
            continue
        of = values.get(one.series_id, {})
        group: str | None = None if one.kind == "all" else one.kind
        if one.kind == "metric":
            group = f"metric {one.name.partition(': ')[0]}"
        sums: dict[date, float] = defaultdict(float)
        delays: dict[date, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        for at, (value, buckets) in of.items():
            sums[at.astimezone(UTC).date()] += value
            for bucket, events in (buckets or {}).items():
                delays[at.astimezone(UTC).date()][int(bucket)] += events
        days = [first + timedelta(days=number) for number in range((day - first).days + 1)]
        # The first day of a series is not a whole one.
        counts = [at > one.began_on and at not in left_out for at in days]
        subject = f"series {one.series_id}"
        subjects[subject] = subject, one
        daily.append(
            DailySeries(subject, group, tuple(sums[at] if c else None for at, c in zip(days, counts, strict=True)))
        )
        if one.kind == "source":
            late = f"skew of {subject}"
            subjects[late] = late, one
            daily.append(
                DailySeries(
                    late,
                    "skew",
                    tuple(
                        skew(delays[at]) + SLACK_S if c and delays[at] else None
                        for at, c in zip(days, counts, strict=True)
                    ),
                )
            )
    verdicts = judge(daily, budget)
    worst: dict[str, Verdict] = {}
    for verdict in verdicts:
        if verdict.unusual and (verdict.series not in worst or verdict.excess > worst[verdict.series].excess):
            worst[verdict.series] = verdict
    if any(subjects[name][1].kind == "action" for name in worst):
        # The total is unusual because of an action, which says more.
        worst = {name: verdict for name, verdict in worst.items() if subjects[name][1].kind != "all"}
    appeared = [one.title for one in known if one.kind == "action" and abs((one.began_on - day).days) <= 1]
    return [
        DutyFinding(subject, midnight(day), _evidence(subjects[subject][1], verdict, day, appeared))
        for subject, verdict in worst.items()
    ], {verdict.series for verdict in verdicts}


def _evidence(one: Series, verdict: Verdict, day: date, appeared: Sequence[str]) -> dict[str, object]:
    less = SLACK_S if verdict.series.startswith("skew") else 0.0
    found: dict[str, object] = {
        "series": one.title,
        "method": "skew" if less else verdict.method,
        "day": day.isoformat(),
        **{name: round(max(0.0, getattr(verdict, name) - less), 1) for name in ("value", "expected", "low", "high")},
    }
    if one.kind == "action" and appeared and verdict.value < verdict.low:
        found["appeared"] = list(appeared[:5])
    return found
