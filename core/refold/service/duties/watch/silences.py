"""Judging silence: which series have had no event for too long."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta

import psycopg

from refold.model.anomaly.silence import HOURS, WEEKS, silence
from refold.service.duties.findings import DutyFinding
from refold.service.duties.watch.backfills import backfilled
from refold.service.duties.watch.findings import muted_now, record
from refold.store import series as store
from refold.store.series import KEPT, Series, midnight

HOUR = timedelta(hours=1)


def judge_silence(conn: psycopg.Connection, until: datetime, budget: float) -> None:
    """Look for series that have fallen silent, once for each hour.

    History is read only of series without an event in the last hour, and of these only the weeks that count.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        until: end of the last hour that is over.
        budget: false alarms a week that are allowed; with 0 nothing is silent.
    """
    known = store.every(conn)
    last = store.last_hours(conn, until)
    judged = [one for one in known if one.kind in ("all", "action", "source") and one.learns_until <= until.date()]
    quiet = [one for one in judged if one.series_id in last and last[one.series_id] < until - HOUR]
    found: list[DutyFinding] = []
    if quiet and budget > 0:
        left_out = _left_out(conn, known, until)
        if until.date() in left_out:
            # Nothing is opened, and nothing resolved.
            judged = [one for one in judged if one not in quiet]
        else:
            muted = muted_now(conn, quiet)
            told = (
                _silence_of(conn, one, last[one.series_id], until, left_out)
                for one in quiet
                if one.series_id not in muted
            )
            found = [one for one in told if one is not None]
    with conn.transaction():
        record(conn, known, found, {_subject(one) for one in judged})
        store.judged_silence(conn, until)


def _left_out(conn: psycopg.Connection, known: Sequence[Series], until: datetime) -> frozenset[date]:
    totals = [one for one in known if one.kind in ("all", "old")]
    values = store.hours(conn, until - KEPT, until, [one.series_id for one in totals])
    return backfilled(conn, totals, values, (until - KEPT).date(), until.date())


def _silence_of(
    conn: psycopg.Connection, one: Series, last: datetime, until: datetime, left_out: frozenset[date]
) -> DutyFinding | None:
    # The first day of a series is not a whole one.
    begin = max(last + HOUR - WEEKS * HOURS * HOUR, until - KEPT, midnight(one.began_on + timedelta(days=1)))
    of = store.hours(conn, begin, until, [one.series_id]).get(one.series_id, {})
    hours = [begin + number * HOUR for number in range((until - begin) // HOUR)]
    told = silence([None if at.date() in left_out else of.get(at, (0.0, None))[0] for at in hours])
    if told is None or not told.unusual:
        return None
    evidence = {
        "series": one.title,
        "method": "silence",
        "hours": told.hours,
        "value": 0,
        "expected": round(told.expected, 1),
        "high": round(told.limit, 1),
    }
    return DutyFinding(_subject(one), until - told.hours * HOUR, evidence)


def _subject(one: Series) -> str:
    return f"silence of series {one.series_id}"
