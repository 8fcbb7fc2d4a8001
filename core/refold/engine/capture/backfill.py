"""Backfill of a capture: events of the rows that were there before, in steps by the key, each in a transaction.

The ledger decides: a row gets an event if the log has none of its insert. A row that a step sees was committed before
it, and so was the event that its INSERT has made, if it has made one. So no row has two events, and none is left out:
the lock that CREATE TRIGGER takes waits for all writers without a trigger.
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random

from refold.errors import InputError
from refold.model.capture.statements import SCHEMA
from refold.model.sql_text import ident
from refold.postgres.failpoints import failpoint
from refold.postgres.retry import in_short_attempts
from refold.postgres.rows import one_row
from refold.store import captures as store
from refold.store.captures import STEP, Backfill, Capture

LOCK_WAIT_S = 60.0
"""Seconds for which a backfill waits for writers that the pause has left without events."""


def backfill(
    conn: psycopg.Connection, capture: Capture, progress: Callable[[Backfill], object], *, step: int = STEP
) -> Backfill:
    """Read the whole table of a capture, or the rest of an interrupted backfill; return the finished backfill.

    Args:
        conn: acts as refold_capture, in autocommit mode; its login owns the table.
        capture: the capture.
        progress: called after every step.
        step: most rows in a transaction.

    Raises:
        InputError: the table has no key, the capture does not capture inserts, or it pauses.
    """
    insist(conn, capture)
    _wait_for_writers(conn, capture)
    current = store.begin_backfill(conn, capture)
    failpoint("backfill_begun")
    while True:
        seen, current = _step(conn, capture, step)
        failpoint("backfill_stepped")
        progress(current)
        if seen < step:
            return current


def insist(conn: psycopg.Connection, capture: Capture) -> None:
    """Raise InputError if a capture cannot be backfilled now."""
    where = f"{capture.table_schema}.{capture.table_name}"
    if "insert" not in capture.operations:
        raise InputError(
            f"{capture.name} does not capture inserts, so that existing rows make no events",
            remedy="Add insert to its operations, and deploy it.",
        )
    if not capture.key:
        raise InputError(
            f"{where} has no primary key, by which a backfill reads it in steps",
            remedy='Name the columns of a unique index in the file: id = ["…"]; or give the table a primary key.',
        )
    gaps = store.gaps(conn).get(capture.capture_id)
    if gaps is not None and gaps.paused:
        raise InputError(
            f"{capture.name} is paused", remedy=f"Run `refold captures resume {capture.name}` first, then the backfill."
        )


def _wait_for_writers(conn: psycopg.Connection, capture: Capture) -> None:
    """Wait for writers that have met the pause and not committed yet: the first step would not see their rows."""
    if capture.capture_id not in store.gaps(conn):
        return

    def wait() -> None:
        conn.execute("SET LOCAL ROLE NONE")
        conn.execute(f"LOCK TABLE {ident(capture.table_schema)}.{ident(capture.table_name)} IN SHARE MODE".encode())

    in_short_attempts(conn, LOCK_WAIT_S, wait)


def _step(conn: psycopg.Connection, capture: Capture, most: int) -> tuple[int, Backfill]:
    """Store the events of the next rows; return the number of rows, and the backfill.

    A row that is deleted at the same moment makes the same event in the transaction that deletes it: then the step is
    repeated, and does not see the row.
    """
    attempts = Retrying(
        retry=retry_if_exception_type(
            (psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected, psycopg.errors.LockNotAvailable)
        ),
        wait=wait_random(0.01, 0.1),
        stop=stop_after_attempt(100),
        reraise=True,
    )
    function = f"{SCHEMA}.{ident(f'{capture.name}_backfill')}"
    for attempt in attempts:
        with attempt, conn.transaction():
            current = store.open_backfill(conn, capture)
            seen, added, last = one_row(
                conn, f"SELECT seen, added, last FROM {function}(%s, %s)".encode(), (current.last, most)
            )
            failpoint("backfill_rows")
            store.step(conn, current, seen, added, last)
            if seen < most:
                store.finish(conn, current)
            row = store.after_step(conn, current)
            failpoint("backfill_recorded")
            return int(seen), row
    raise AssertionError("unreachable: the attempts end with a return or an exception")
