"""The duties that go on with erasures of people that were interrupted.

The log still says who the person is, until its part is done; what comes after needs nobody. That part may wait for a
store, and so has a thread of its own.
"""

from __future__ import annotations

import logging

import psycopg

from refold.engine.archive.failures import StoreFailed
from refold.engine.erasure.run import change_log, finish
from refold.errors import BuildError
from refold.postgres.rows import one_row
from refold.store import erasures
from refold.store.builds.compiled import Compiler

log = logging.getLogger("refold.erasures")

LOG = "erasures in the log"
REST = "erasures"
PATIENCE_S = 1.0
"""Seconds to wait for a command that erases or deploys: the next run is soon."""


def log_part(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Go on with erasures that have not changed all of the log, if this login may."""
    waiting = [one for one in erasures.unfinished(conn) if one.step == "log"]
    if not waiting:
        return
    (may,) = one_row(conn, "SELECT pg_has_role(session_user, 'refold_owner', 'MEMBER')")
    if not may:
        log.warning("an erasure was interrupted, and workers may not change the log: run `refold erase USER` again")
        return
    for one in waiting:
        try:
            change_log(conn, compiler, one, seconds=PATIENCE_S)
        except (BuildError, StoreFailed) as waits:
            log.info("erasure %s: %s", one.erasure_id, waits)


def the_rest(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Go on with erasures whose part in the log is done: archive, vacuum, and the proof."""
    for one in erasures.unfinished(conn):
        if one.step == "log":
            continue
        try:
            finish(conn, one)
        except (BuildError, StoreFailed) as waits:
            log.warning("erasure %s goes on later: %s", one.erasure_id, waits)
