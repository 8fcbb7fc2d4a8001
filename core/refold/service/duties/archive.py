"""The duty that archives sealed segments, in bounded steps, and looks again at what was archived.

It runs on a thread of its own: while a store does not answer, nothing else waits. Each failure doubles the pause before
the next attempt.
"""

from __future__ import annotations

import logging
from datetime import timedelta

import psycopg

from refold.engine.archive import write
from refold.engine.archive.failures import NotOwner, StoreFailed
from refold.engine.archive.verify import verify
from refold.errors import BuildError, RefoldError
from refold.postgres.rows import one_row
from refold.prose import counted
from refold.service.duties.findings import DutyFinding, record
from refold.store import archives
from refold.store.builds.compiled import Compiler
from refold.store.log.integrity import LogDamaged
from refold.store.schema.settings import Settings, read_settings

log = logging.getLogger("refold.archive")

NAME = "archive"
STEP_S = 30.0
"""Seconds after which no other segment is begun."""
LEAST_S = 30.0
"""The first pause after a failure, seconds."""
MOST_S = 3600.0
"""The longest pause, seconds."""
FAILING = timedelta(seconds=60)
"""Time for which a store may fail before it is an incident."""


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Archive what is due, compare the file that was not looked at longest, open and resolve incidents."""
    settings = read_settings(conn)
    if settings.archive is None:
        record(conn, "archive", NAME, [])
        return
    waits = conn.execute("SELECT FROM refold.archive_store WHERE retry_at > clock_timestamp()").rowcount
    if waits:
        return
    try:
        done = write.run(conn, by=NAME, seconds=STEP_S)
        _look_again(conn, settings)
    except LogDamaged as damaged:
        archives.failed(conn, str(damaged), least_s=LEAST_S, most_s=MOST_S)
        log.warning("not archived: %s", damaged)
    except StoreFailed as failure:
        _failed(conn, settings.archive, failure)
    except BuildError as busy:
        log.info("%s", busy)
    else:
        archives.worked(conn)
        record(conn, "archive", NAME, [])
        if done.written:
            log.info("archived %s, %s", counted(len(done.written), "segment"), counted(done.events, "event"))


def _look_again(conn: psycopg.Connection, settings: Settings) -> None:
    """Compare the file that was not looked at for longest, if that is too long ago."""
    oldest = archives.find(
        conn,
        "a.proved_at IS NOT NULL AND (a.lower_position, a.generation) = (SELECT o.lower_position, o.generation"
        " FROM refold.archives AS o WHERE o.state IN ('written', 'verified', 'purged') AND o.proved_at IS NOT NULL"
        " AND o.checked_at < clock_timestamp() - make_interval(days => %s) ORDER BY o.checked_at LIMIT 1)",
        settings.scrub_days,
    )
    if oldest:
        verify(conn, by=NAME, only=oldest)


def _failed(conn: psycopg.Connection, location: str, failure: RefoldError) -> None:
    claim = archives.failed(conn, str(failure), least_s=LEAST_S, most_s=MOST_S)
    (now,) = one_row(conn, "SELECT clock_timestamp()")
    since = None if claim is None else claim.failing_since
    # Without a person a store that belongs to another database stays so.
    if isinstance(failure, NotOwner) or (since is not None and now - since >= FAILING):
        evidence = {"error": str(failure), "remedy": failure.remedy}
        record(conn, "archive", NAME, [DutyFinding(location, since, evidence)])
    log.warning("not archived: %s", failure)
