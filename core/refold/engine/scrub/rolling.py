"""The scrub as a duty: what is new every time, and of the rest a bounded portion, so that all is seen in a period."""

from __future__ import annotations

import time
from datetime import datetime

import psycopg

from refold.model.stream.slices import Range
from refold.store.log.damage import leave, look_again, refuse_known
from refold.store.log.integrity import LogDamaged, edge, look, portions
from refold.store.log.seal import TOGETHER

NAME = "scrub"
SECONDS = 3.0
"""For which it goes on in what is due, if there is so much; the rest is for the next time."""
RECENT = 4
"""Slices at the log's end that are looked at every time, with whatever comes behind them."""
AT_ONCE = 4
"""Slices that are looked at in one transaction: 65,536 positions."""


def step(conn: psycopg.Connection) -> None:
    """Looks at what is known to be damaged, at the log's end, and at slices that nobody has looked at for a period.

    Args:
        conn: acts as refold_worker, in autocommit mode.
    """
    look_again(conn, by=NAME)
    unsealed, last = edge(conn)
    # Slices that are open for long (a transaction is) have their turn one after the other, by the clock.
    opened = range(unsealed, max(unsealed, last - RECENT + 1))
    turn = int(time.time() // 60) * AT_ONCE % len(opened) if opened else 0
    _look(conn, (max(unsealed, last - RECENT + 1), None))
    for part in portions(opened[turn : turn + AT_ONCE]):
        _look(conn, part)
    until = time.monotonic() + SECONDS
    while due := _due(conn):
        for part in portions(due):
            _look(conn, part)
        conn.execute("UPDATE refold.sealed_slices SET scrubbed_at = clock_timestamp() WHERE slice = ANY (%s)", (due,))
        if time.monotonic() >= until:
            break


def scrubbed_since(conn: psycopg.Connection, moment: datetime, *, by: str, seconds: float) -> bool:
    """Whether all of the log has been looked at since some time, and is as it was written; looks at what has not.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        moment: since when.
        by: who asks, for the incidents.
        seconds: after which it stops, for the next call to go on.

    Returns:
        False when there is more to look at.

    Raises:
        LogDamaged: it is not as it was written.
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
    """The sealed slices of which it is longest ago, if it is longer than the period."""
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
    with conn.transaction():
        found = look(conn, part, ledger=True)
        leave(conn, found.damage, found.slices, by=NAME)
