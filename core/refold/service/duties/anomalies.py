"""The duty that watches series of counts for what is unusual: events by action and source, and columns of metrics.

It counts what has come to the log since its last run. What was counted is read again only when a day or an hour is
over: each is judged once, and what is late counts on the day on which it came. What is unusual is an incident, and
changes no data.
"""

from __future__ import annotations

from datetime import UTC, timedelta

import psycopg

from refold.service.duties.watch import columns, days, events, silences
from refold.service.duties.watch.findings import NAME as NAME
from refold.store import series as store
from refold.store.builds.compiled import Compiler
from refold.store.schema.settings import read_settings

GRACE = timedelta(minutes=10)
"""Time after the end of a day or an hour before it is judged: its last transactions may be open."""


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Count what has come, and open and resolve the incidents `anomaly`."""
    events.count(conn)
    marks = store.marks(conn)
    if marks is None or marks.read_at is None:
        return
    over = (marks.read_at - GRACE).astimezone(UTC)
    day = over.date() - timedelta(days=1)
    # Another one, and not an older one: a clock that was ahead may have left any mark.
    if marks.day != day:
        columns.follow(conn, compiler, day)
        days.judge_day(conn, day, read_settings(conn).anomaly_budget)
    hour = over.replace(minute=0, second=0, microsecond=0)
    if marks.hour != hour:
        silences.judge_silence(conn, hour, read_settings(conn).anomaly_budget)
