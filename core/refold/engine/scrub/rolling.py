"""The scrub as a duty: new slices every time, and a bounded portion of the rest, so that a period covers the log."""

from __future__ import annotations

import time
from datetime import datetime

import psycopg

from refold import tracing
from refold.model.stream.slices import Range
from refold.store.log.cold_ledger import look_at_part
from refold.store.log.damage import leave, leave_cold, look_again, refuse_known
from refold.store.log.integrity import LogDamaged, edge, look, portions
from refold.store.log.seal import TOGETHER

NAME = "scrub"
SECONDS = 3.0
"""Seconds for which a run scrubs due slices; the next run continues."""
RECENT = 4
"""Slices at the log's end that every run scrubs, with later positions."""
COLD_PARTS = 1_024
"""Parts of the cold ledger, of which a run compares one with its checksums; `refold scrub` also counts all ids."""
AT_ONCE = 4
"""Slices that a transaction scrubs: 65,536 positions."""


def step(conn: psycopg.Connection) -> None:
    """Scrub known damage, the end of the log, and the slices that are due.

    Args:
        conn: acts as refold_worker, in autocommit mode.
    """
    look_again(conn, by=NAME)
    unsealed, last = edge(conn)
    # An open transaction may keep slices unsealed for long: scrub them in turn, by the clock.
    opened = range(unsealed, max(unsealed, last - RECENT + 1))
    turn = int(time.time() // 60) * AT_ONCE % len(opened) if opened else 0
    _look(conn, (max(unsealed, last - RECENT + 1), None))
    for part in portions(opened[turn : turn + AT_ONCE]):
        _look(conn, part)
    with conn.transaction():
        cold = look_at_part(conn, int(time.time() // 60) % COLD_PARTS, COLD_PARTS)
        leave_cold(conn, cold, by=NAME, whole=False)
    until = time.monotonic() + SECONDS
    while due := _due(conn):
        for part in portions(due):
            _look(conn, part)
        conn.execute("UPDATE refold.sealed_slices SET scrubbed_at = clock_timestamp() WHERE slice = ANY (%s)", (due,))
        if time.monotonic() >= until:
            break


def scrubbed_since(conn: psycopg.Connection, moment: datetime, *, by: str, seconds: float) -> bool:
    """Scrub the slices of the log that were not scrubbed since a moment; return whether all are done.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        moment: earliest time at which a slice may have been scrubbed.
        by: name of the program, for the incidents.
        seconds: time after which the call stops; the next call continues.

    Returns:
        True if all of the log has been scrubbed; False if slices are left.

    Raises:
        LogDamaged: the log differs from what was written.
    """
    refuse_known(conn)
    until = time.monotonic() + seconds
    while True:
        rows = conn.execute(
            "SELECT slice FROM refold.sealed_slices"
            " WHERE sealed_at IS NOT NULL AND coalesce(scrubbed_at, '-infinity') < %s ORDER BY slice LIMIT %s",
            (moment, TOGETHER),
        ).fetchall()
        if not rows:
            break
        numbers = [int(number) for (number,) in rows]
        for part in portions(numbers):
            _refuse(conn, part, by)
        conn.execute(
            "UPDATE refold.sealed_slices SET scrubbed_at = clock_timestamp() WHERE slice = ANY (%s)", (numbers,)
        )
        if time.monotonic() >= until:
            return False
    unsealed, last = edge(conn)
    for part in portions(range(unsealed, last + 1)):
        _refuse(conn, part, by)
    return True


def _refuse(conn: psycopg.Connection, part: Range, by: str) -> None:
    with conn.transaction():
        found = look(conn, part)
        leave(conn, found.damage, found.slices, by=by)
    if found.damage:
        raise LogDamaged(found.damage, found.slices)


def _due(conn: psycopg.Connection) -> list[int]:
    """Return the sealed slices whose last scrub is longer ago than the period, oldest first."""
    rows = conn.execute(
        """
        SELECT slice FROM refold.sealed_slices
        WHERE sealed_at IS NOT NULL
          AND coalesce(scrubbed_at, '-infinity')
              < clock_timestamp() - (SELECT make_interval(days => scrub_days) FROM refold.settings)
        ORDER BY scrubbed_at NULLS FIRST, slice LIMIT %s
        """,
        (AT_ONCE,),
    ).fetchall()
    return [int(number) for (number,) in rows]


def _look(conn: psycopg.Connection, part: Range) -> None:
    with tracing.work("scrub", "events", keep=False, by=NAME) as span, conn.transaction():
        found = look(conn, part, ledger=True)
        leave(conn, found.damage, found.slices, by=NAME)
        span.keep = bool(found.damage)
        span.note(events=found.events, damage=len(found.damage))
