"""Starting a first load over: the one way, whoever has a reason to.

What the steps that are done have read may not be what is there now: a row of the stream was healed, an event
released into it, a restore took some of the log back. Whatever is kept about those rows goes with them: checksums, the
progress of a deep audit, proofs, and the error of a step that failed over what is gone.
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from refold.model.stream.cursor import EMPTY, Cursor
from refold.model.upkeep.names import BASE, MEMBERS
from refold.store import bases
from refold.store.builds import checksums, proofs
from refold.store.builds.build import EVENT_GRAIN, Build, move
from refold.store.sinks import collapse_all


def start_over(conn: psycopg.Connection, build: Build, *, purged: bool = False) -> None:
    """Empty a build that is not loaded, and restart its load.

    Dead letters stay: their events are left out of the next load as they were of this one.

    Args:
        conn: the caller's transaction, which holds the build's lock, or nobody works here.
        build: which.
        purged: whether what stands for purged events goes too, because the archive has other events now.
    """
    if purged:
        conn.execute("DELETE FROM refold.bases WHERE build_id = %s", (build.build_id,))
        for table in tables_of(conn, build.table_name):
            conn.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier("refold_builds", table)))
    empty(conn, build)
    move(conn, build, Cursor(EMPTY))


def empty(conn: psycopg.Connection, build: Build) -> None:
    """Empty a build without moving its cursor, because the cursor of a loaded build must not go back.

    What stands for purged events stays: its base, or its rows below the floor. Only a load from the archive could
    bring them back; one that has not read all of them begins again.
    """
    stands = build.based and not bases.give_up(conn, build.build_id, build.floor)
    for table in tables_of(conn, build.table_name, bases=False):
        name = sql.Identifier("refold_builds", table)
        if stands and build.upkeep in EVENT_GRAIN:
            conn.execute(sql.SQL("DELETE FROM {} WHERE position >= {}").format(name, sql.Literal(build.floor)))
        else:
            conn.execute(sql.SQL("TRUNCATE {}").format(name))
    if build.sinks:
        collapse_all(conn, build.sinks)
    # Else an audit would take the rows that are yet to be loaded for rows that somebody deleted.
    checksums.forget(conn, build.build_id)
    proofs.forget(conn, build.build_id)
    for marks in ("audits", "quick_audits"):
        conn.execute(
            sql.SQL("DELETE FROM {} WHERE build_id = %s").format(sql.Identifier("refold", marks)), (build.build_id,)
        )
    conn.execute(
        "UPDATE refold.builds SET loaded = false, load_step = 0, load_steps = NULL, error = NULL WHERE build_id = %s",
        (build.build_id,),
    )


def tables_of(conn: psycopg.Connection, table_name: str, *, bases: bool = True) -> list[str]:
    """Return the existing tables of a build: its main table, the sets beside it, and the bases of both.

    Args:
        conn: a connection.
        table_name: the main table.
        bases: whether to return the bases too.
    """
    rows = conn.execute(
        """
        SELECT tablename FROM pg_tables
        WHERE schemaname = 'refold_builds' AND starts_with(tablename, %(name)s)
          AND substr(tablename, length(%(name)s) + 1) ~ %(suffixes)s
        ORDER BY 1
        """,
        {"name": table_name, "suffixes": f"^({MEMBERS}[0-9]+)?{f'({BASE})?' if bases else ''}$"},
    ).fetchall()
    return [str(name) for (name,) in rows]
