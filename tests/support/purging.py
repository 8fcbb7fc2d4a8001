"""A purge as a test makes it: segments are detached in the transaction that says so."""

from __future__ import annotations

from typing import Any

import psycopg

from refold.store.archives import Archive
from refold.store.log.cold_ledger import chill_step

Connection = psycopg.Connection[Any]


def purge(admin: Connection, segments: int = 1) -> tuple[int, int]:
    """Detach and drop the lowest segments of the log, whose ids stay; return the range of their positions.

    Args:
        admin: a superuser's, in autocommit mode.
        segments: how many.
    """
    rows = admin.execute(
        "SELECT segment::text, lower_position, upper_position FROM refold.segments ORDER BY 2 LIMIT %s", (segments,)
    ).fetchall()
    for name, lower, upper in rows:
        with admin.transaction():
            admin.execute("SET LOCAL ROLE refold_owner")
            admin.execute("SELECT refold.chill(%s, %s)", (lower, upper))
            admin.execute(f"ALTER TABLE refold.events DETACH PARTITION {name}".encode())
        admin.execute(f"DROP TABLE {name}".encode())
    return rows[0][1], rows[-1][2]


def chill_all(worker: Connection) -> int:
    """Move the ids of all purged events to the cold ledger; return the number of steps."""
    steps = 0
    while chill_step(worker) is not None:
        steps += 1
    return steps


def let_go(admin: Connection, archive: Archive) -> None:
    """What a purge does with a segment that is archived and folded into all bases.

    Args:
        admin: a superuser's, in autocommit mode.
        archive: its file.
    """
    with admin.transaction():
        admin.execute("SET LOCAL ROLE refold_owner")
        admin.execute("UPDATE refold.builds SET floor = %s WHERE upstream_id IS NULL", (archive.upper_position,))
        admin.execute("SELECT refold.chill(%s, %s)", (archive.lower_position, archive.upper_position))
        admin.execute(f"ALTER TABLE refold.events DETACH PARTITION {archive.segment}".encode())
        admin.execute(
            "UPDATE refold.archives SET state = 'purged', purged_at = now() WHERE location = %s", (archive.location,)
        )
    admin.execute(f"DROP TABLE {archive.segment}".encode())
