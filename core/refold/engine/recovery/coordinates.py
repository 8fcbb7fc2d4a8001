"""New coordinates: of the log, of the streams made of it, of cursors and dead letters.

Every event that is there gets a txid that no transaction of a cluster ever has again; its position, and with it the
order of reading, stays. Two events of different clusters can have the same position: then the older keeps the lower
txid.
"""

from __future__ import annotations

from functools import partial

import psycopg
from psycopg import sql

from refold.model.sql_text import ident
from refold.model.stream.cursor import EMPTY, Cursor, Snapshot
from refold.model.stream.page_sql import LOG_TABLE
from refold.model.upkeep.names import LOADED_FIRST
from refold.postgres.failpoints import failpoint
from refold.store.builds.build import EVENT_GRAIN, Build, lock, move
from refold.store.builds.dead_letters import recount
from refold.store.builds.first_load import empty
from refold.store.log.guards import GUARDS, guards_disabled

RESTORED = 2
"""The txid of restored events (Postgres's FrozenTransactionId: older than every transaction)."""
BOUND = 100
"""All restored events are below it, and all transactions of a cluster above: initdb itself takes hundreds."""
EVERYTHING = Snapshot(BOUND, BOUND, ())
"""The cursor that has applied all restored events, and nothing that comes."""


def draw_from_the_end(conn: psycopg.Connection) -> None:
    """Puts the sequence behind the log's last position, where a restore left it before, and makes room there.

    Only forward: whoever draws a position meanwhile draws one of the low ones, or one behind the end. What is known
    about who has drawn which positions (refold.positions_since) is noted anew.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
    """
    with conn.transaction():
        conn.execute("SET LOCAL ROLE refold_owner")
        conn.execute(
            """
            SELECT setval('refold.events_position', log.last)
            FROM (SELECT max(position) AS last FROM refold.events) AS log, refold.events_position AS s
            WHERE log.last > s.last_value OR (log.last = s.last_value AND NOT s.is_called)
            """
        )
        conn.execute("SELECT refold.ensure_segments()")
    # A transaction of its own, with an id that is younger than the sequence's new place: below the old one, whoever
    # appended since the restore has drawn positions of slices that had been noted as passed.
    conn.execute("UPDATE refold.sealed_slices SET passed = pg_current_xact_id()")


def rewrite_log(conn: psycopg.Connection) -> int:
    """Gives all events of the log the restored txid, segment by segment; returns how many had another.

    Each segment is a transaction, and nobody reads meanwhile: a run that was killed goes on with the next one. What
    is appended behind it keeps its own txid, which no cursor knows yet.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
    """
    changed = 0
    with conn.transaction():
        # The events' hashes are of other coordinates: the segments are sealed anew.
        conn.execute("SET LOCAL ROLE refold_owner")
        conn.execute("DELETE FROM refold.sealed_slices")
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
            # The old rows are as many as the new ones, and nothing is known about a restored table.
            conn.execute(f"VACUUM (ANALYZE) {segment}".encode())
        finally:
            conn.execute("SET ROLE refold_worker")
    return changed


def rewrite_build(conn: psycopg.Connection, build: Build) -> None:
    """Gives a loaded build the cursor of everything, and its rows the restored txid where they carry one.

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
    """Makes a loaded build one that is loaded for the first time.

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
    """Puts a cursor where it would not be allowed to go."""
    guards_disabled(
        conn, "refold.cursors", ["guard_cursor", "refuse_foreign_cluster"], lambda: move(conn, build, cursor)
    )


def settle_dead_letters(conn: psycopg.Connection, build: Build, stream: str) -> list[str]:
    """Points a build's dead letters at their events; forgets those whose event is gone, and names them.

    One that stayed behind would keep its event out when the producer sends it again.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
        build: the build.
        stream: the table that it reads, already as it must be.
    """
    if not conn.execute("SELECT FROM refold.dead_letters WHERE build_id = %s LIMIT 1", (build.build_id,)).rowcount:
        return []
    ordinal = "letter.ordinal" if stream == LOG_TABLE else "event.ordinal"
    with conn.transaction():
        # Whoever changes letters holds the build's lock.
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
