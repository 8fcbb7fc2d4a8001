"""The duty that purges the log as `refold.settings.keep_log` says: folds ahead in bounded steps, then lets segments go.

It is apart from the duties that archive and that make segments: whatever keeps a segment in the log keeps no other duty
from its work.
"""

from __future__ import annotations

import logging
from datetime import timedelta

import psycopg

from refold.engine.archive.failures import StoreFailed
from refold.engine.purge.purge import Due, drop, due, purge
from refold.errors import BuildError
from refold.postgres.rows import one_row
from refold.prose import counted
from refold.service.duties.findings import DutyFinding, record
from refold.store.builds.compiled import Compiler
from refold.store.schema.settings import read_settings

log = logging.getLogger("refold.archive")

NAME = "purge"
STEP_S = 30.0
"""Seconds after which nothing else is begun."""
LATE = timedelta(days=1)
"""Time for which a segment may stay in the log beyond `keep_log` before it is an incident."""


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Purge what is due, and record what has been in the way for a day."""
    settings = read_settings(conn)
    if settings.archive is None or settings.keep_log is None:
        drop(conn)
        record(conn, "purge", NAME, [])
        return
    findings: list[DutyFinding] = []
    try:
        done = purge(conn, compiler, seconds=STEP_S)
    except (StoreFailed, BuildError) as error:
        log.warning("not purged: %s", error)
        for one in due(conn)[:1]:
            findings = _late(conn, one, settings.keep_log, {"because": [str(error)], "remedy": error.remedy})
    else:
        if done.segments:
            log.info("purged %s, %s", counted(len(done.segments), "segment"), counted(done.events, "event"))
        if done.stopped_at is not None:
            because = [one.reason for one in done.stopped_at.obstacles]
            remedies = [one.remedy for one in done.stopped_at.obstacles]
            findings = _late(conn, done.stopped_at.due, settings.keep_log, {"because": because, "remedy": remedies})
    record(conn, "purge", NAME, findings)


def _late(conn: psycopg.Connection, one: Due, keep: timedelta, evidence: dict[str, object]) -> list[DutyFinding]:
    """Return the finding that a segment has been due for too long; none if it has not."""
    (now,) = one_row(conn, "SELECT clock_timestamp()")
    since = one.sealed_at + keep
    if now - since < LATE:
        return []
    return [DutyFinding(one.name, since, evidence)]
