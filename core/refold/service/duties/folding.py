"""What pages add is added up, and removed once it is history: changes of checksums, and the cursors before the newest.

Both are removed by DELETE, in bounded parts, and only as fast as vacuum takes away what was removed before: while a
snapshot is held that is not at all, and rows that are dead cost as much as rows that nobody reads. (PgQ rotates tables
and empties them by TRUNCATE instead. An audit in REPEATABLE READ whose snapshot is older would find them empty: drift
where there is none.)
"""

from __future__ import annotations

import psycopg

from refold.postgres.old_snapshots import old
from refold.store.builds.checksums import fold
from refold.store.builds.compiled import Compiler
from refold.store.schema.settings import read_settings

NAME = "folding"
KEPT = 10
"""Newest cursors of each build that stay: one is enough; the others are for people who wonder."""
PART = 5_000
"""Rows in one statement."""
DEAD = 50_000
"""Rows that may be dead in a table and not vacuumed yet. So much is wasted under a snapshot that is held where nobody
is allowed to see it."""


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Adds up checksums, and removes old cursors, unless an old snapshot is held."""
    if old(conn, read_settings(conn).held_snapshot_after):
        return
    builds = [int(build) for (build,) in conn.execute("SELECT build_id FROM refold.builds ORDER BY 1").fetchall()]
    for table, take in (("checksum_changes", fold), ("cursors", prune)):
        room = DEAD - _dead(conn, table)
        for build in builds:
            taken = PART
            while taken >= PART and room > 0:
                taken = take(conn, build, PART)
                room -= taken


def prune(conn: psycopg.Connection, build_id: int, at_most: int) -> int:
    """Removes the oldest cursors of a build; returns how many."""
    return conn.execute(
        """
        DELETE FROM refold.cursors AS c
        USING (SELECT number FROM refold.cursors WHERE build_id = %(build)s ORDER BY number DESC LIMIT 1) AS newest
        WHERE c.build_id = %(build)s AND c.number <= newest.number - %(kept)s
          AND c.number < (SELECT min(number) FROM refold.cursors WHERE build_id = %(build)s) + %(most)s
        """,
        {"build": build_id, "kept": KEPT, "most": at_most},
    ).rowcount


def _dead(conn: psycopg.Connection, table: str) -> int:
    """Rows of a table that are dead and not vacuumed, as far as the statistics know."""
    row = conn.execute("SELECT coalesce(pg_stat_get_dead_tuples(%s::regclass), 0)", (f"refold.{table}",)).fetchone()
    return 0 if row is None else int(row[0])
