"""The duty that folds changes of checksums into checksums, and deletes old cursors.

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

NAME = "compact checksums"
KEPT = 10
"""Newest cursors of each build to keep: refold needs one; the others help an investigation."""
PART = 5_000
"""Rows in one statement."""
DEAD = 50_000
"""Dead rows that a table may have before vacuum. A hidden old snapshot wastes at most as much."""


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Fold checksums and delete old cursors, unless an old snapshot is held."""
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
    """Delete the oldest cursors of a build; return how many."""
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
    """Return the number of dead rows of a table, from the statistics."""
    row = conn.execute("SELECT coalesce(pg_stat_get_dead_tuples(%s::regclass), 0)", (f"refold.{table}",)).fetchone()
    return 0 if row is None else int(row[0])
