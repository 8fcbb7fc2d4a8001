"""New coordinates for the log, its streams, cursors and dead letters.

Every restored event gets a txid that no later transaction of a cluster can have. It keeps its position, and with that
the order of reading. Two events of different clusters can have the same position: then the older keeps the lower txid.
"""

from __future__ import annotations

from functools import partial

import psycopg
from psycopg import sql

from refold.model.sql_text import ident
from refold.model.stream.cursor import BOUND, EMPTY, RESTORED, Cursor, Snapshot
from refold.model.stream.page_sql import LOG_TABLE
from refold.model.upkeep.names import LOADED_FIRST
from refold.postgres.failpoints import failpoint
from refold.store import archives
from refold.store.builds.build import EVENT_GRAIN, Build, lock, move
from refold.store.builds.dead_letters import recount
from refold.store.builds.first_load import empty
from refold.store.log.guards import GUARDS, guards_disabled
from refold.store.log.seal import unseal

EVERYTHING = Snapshot(BOUND, BOUND, ())
"""Snapshot in which all restored events are applied, and no later event."""


def draw_from_the_end(conn: psycopg.Connection) -> None:
    """Move the sequence of positions past the last position in the log, and create segments there.

    A restore may leave the sequence too low. It only moves forward: a producer that appends meanwhile draws a free
    position. The record of which transactions may have drawn which positions (refold.positions_since) starts again.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
    """
    with conn.transaction():
        conn.execute("SET LOCAL ROLE refold_owner")
        conn.execute(
            """
            SELECT setval('refold.events_position', log.last)
            FROM (SELECT greatest(max(position), refold.log_floor() - 1) AS last FROM refold.events) AS log,
                 refold.events_position AS s
            WHERE log.last > s.last_value OR (log.last = s.last_value AND NOT s.is_called)
            """
        )
        # The other cluster's transaction ids say nothing here.
        conn.execute("DELETE FROM refold.log_ends")
        conn.execute("SELECT refold.ensure_segments()")
    # In a second transaction, whose id is younger than the move of the sequence: producers since the restore may have
    # drawn positions in slices that were recorded as passed.
    conn.execute("UPDATE refold.sealed_slices SET passed = pg_current_xact_id()")


def rewrite_log(conn: psycopg.Connection) -> int:
    """Give all events of the log the restored txid, segment by segment; return the number of events changed.

    Each segment is a transaction, and workers do not run meanwhile: a killed run continues with the next segment. An
    event that is appended meanwhile keeps its own txid, which no cursor covers yet.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
    """
    changed = 0
    with conn.transaction():
        # The checksums of sealed slices include the old coordinates: workers seal the slices again.
        conn.execute("SET LOCAL ROLE refold_owner")
        unseal(conn)
        archives.unprove(conn, rewritten=True)
        _rewrite_purged(conn)
        # They name transactions of the other cluster, and would be taken for those that get the same ids here.
        conn.execute("DELETE FROM refold.traces")
    segments = conn.execute(
        "SELECT segment::text, lower_position, upper_position FROM refold.segments ORDER BY lower_position"
    ).fetchall()
    for segment, lower, upper in segments:
        found = conn.execute(
            "SELECT EXISTS (SELECT FROM refold.events"
            " WHERE txid >= %s::text::xid8 AND position >= %s AND position < %s)",
            (str(BOUND), lower, upper),
        ).fetchone()
        if found != (True,):
            continue
        changed += guards_disabled(conn, segment, GUARDS, partial(_rewrite, conn, segment, "position"))
        failpoint("recover_segment")
        conn.execute("SET ROLE refold_owner")
        try:
            # Half of the rows are dead now, and a restored table has no statistics.
            conn.execute(f"VACUUM (ANALYZE) {segment}".encode())
        finally:
            conn.execute("SET ROLE refold_worker")
    return changed


def _rewrite_purged(conn: psycopg.Connection) -> None:
    """Give what stands for purged events the restored txid, which every cursor covers.

    Their checksums stay, and `refold.archives.upto` with them: see `refold.engine.archive.thaw.proved`.
    """
    restored = {"txid": str(RESTORED)}
    conn.execute("UPDATE refold.sealed_slices SET upto = %(txid)s::text::xid8 WHERE sealed_at IS NOT NULL", restored)
    # Only those of purged segments are left.
    conn.execute("UPDATE refold.archive_slices SET upto = %(txid)s::text::xid8", restored)
    # What is folded ahead of the next purge added up the former ids.
    conn.execute("UPDATE refold.bases SET stale = true WHERE folded > refold.log_floor()")
    conn.execute(
        """
        UPDATE refold.dead_letters AS d
        SET txid = %(txid)s::text::xid8, event = jsonb_set(d.event, '{txid}', to_jsonb(%(txid)s::text))
        FROM refold.builds AS b
        WHERE b.build_id = d.build_id AND b.upstream_id IS NULL AND d.event IS NOT NULL
          AND d.position < refold.log_floor()
        """,
        restored,
    )
    # The others are copied again before their segment is purged.
    conn.execute("UPDATE refold.dead_letters SET event = NULL WHERE position >= refold.log_floor()")


def rewrite_build(conn: psycopg.Connection, build: Build) -> None:
    """Give a loaded build the cursor `EVERYTHING`, and its rows the restored txid if they have one.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
        build: the build.
    """
    with conn.transaction():
        if build.upkeep in EVENT_GRAIN:
            _rewrite(conn, f"refold_builds.{ident(build.table_name)}", "position, ordinal")
        _put(conn, build, Cursor(EVERYTHING))


def _rewrite(conn: psycopg.Connection, table: str, within: str) -> int:
    return conn.execute(
        f"""
        UPDATE {table} AS old
        SET txid = new.txid
        FROM (
            SELECT ctid AS at,
                   ({RESTORED - 1} + row_number() OVER (PARTITION BY {within} ORDER BY txid))::text::xid8 AS txid
            FROM {table}
        ) AS new
        WHERE old.ctid = new.at AND old.txid <> new.txid
        """.encode()
    ).rowcount


def unload(conn: psycopg.Connection, build: Build) -> None:
    """Empty a loaded build, so that its first load starts again.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
        build: a loaded build.
    """
    with conn.transaction():
        for index in LOADED_FIRST.get(build.upkeep, ()):
            name = sql.Identifier("refold_builds", build.table_name + index)
            conn.execute(sql.SQL("DROP INDEX IF EXISTS {}").format(name))
        empty(conn, build)
        _put(conn, build, Cursor(EMPTY))


def _put(conn: psycopg.Connection, build: Build, cursor: Cursor) -> None:
    """Set a cursor with its guards disabled."""
    guards_disabled(
        conn, "refold.cursors", ["guard_cursor", "refuse_foreign_cluster"], lambda: move(conn, build, cursor)
    )


def settle_dead_letters(conn: psycopg.Connection, build: Build, stream: str) -> list[str]:
    """Update the coordinates of a build's dead letters; delete those without an event, and return their event ids.

    A dead letter without an event would exclude that event if the producer sends it again.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
        build: the build.
        stream: the table that it reads, with its final coordinates.
    """
    if not conn.execute("SELECT FROM refold.dead_letters WHERE build_id = %s LIMIT 1", (build.build_id,)).rowcount:
        return []
    ordinal = "letter.ordinal" if stream == LOG_TABLE else "event.ordinal"
    # The event was copied before it was purged.
    kept = "letter.event IS NULL" if stream == LOG_TABLE else "true"
    with conn.transaction():
        # All code that changes dead letters holds the build's lock.
        lock(conn, build.build_id, wait=True)
        conn.execute(
            f"""
            UPDATE refold.dead_letters AS letter
            SET txid = event.txid, position = event.position, ordinal = {ordinal}
            FROM {stream} AS event
            WHERE letter.build_id = %s AND event.event_id = letter.event_id
              AND (letter.txid, letter.position) IS DISTINCT FROM (event.txid, event.position)
            """.encode(),
            (build.build_id,),
        )
        gone = conn.execute(
            f"""
            SELECT letter.event_id FROM refold.dead_letters AS letter
            WHERE letter.build_id = %s AND letter.state <> 'released'
              AND NOT EXISTS (SELECT FROM {stream} AS event WHERE event.event_id = letter.event_id)
              AND {kept}
            ORDER BY 1
            """.encode(),
            (build.build_id,),
        ).fetchall()
        names = [str(event_id) for (event_id,) in gone]
        if names:
            conn.execute("SET LOCAL ROLE refold_owner")
            conn.execute(
                "DELETE FROM refold.dead_letters WHERE build_id = %s AND event_id = ANY (%s)", (build.build_id, names)
            )
            conn.execute("SET LOCAL ROLE refold_worker")
            recount(conn, build.build_id)
    return names
