"""Letting slices go: their rows, and the border from which on the build has rows, in one transaction.

The law of such a build is `table = query over the applied events whose slice is kept`. The border moves under the
build's lock, so no page and no repair runs beside it; an audit sees rows and border of one snapshot. The border never
moves back. A portion of slices goes in each transaction, the oldest first: a process may be killed anywhere, and the
same command, or a worker, goes on.
"""

from __future__ import annotations

import time
from dataclasses import replace

import psycopg
from psycopg.sql import SQL

from refold.engine.retain.policy import first_of
from refold.model.sql_text import ident, quoted
from refold.model.stream.slices import NO_DAY
from refold.model.upkeep.retained import time_slicing
from refold.model.upkeep.statements import Kept
from refold.postgres.failpoints import failpoint
from refold.store import bases
from refold.store.builds import checksums
from refold.store.builds.build import EVENT_GRAIN, Build, changed, find, lock
from refold.store.builds.compiled import CompiledBuild, Compiler
from refold.store.outbox import send
from refold.store.retentions import Retention

ROWS = 50_000
"""Rows of a portion, about; it has at least one slice."""


def let_go(
    conn: psycopg.Connection,
    compiler: Compiler,
    retention: Retention,
    *,
    seconds: float | None = None,
    rows: int = ROWS,
) -> int:
    """Let the slices of a metric go that are older than it keeps them, and return how many rows went.

    All builds that are kept up to date follow, also one that waits to go live. One that loads follows afterwards.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        compiler: makes the SQL of builds.
        retention: how long its rows are kept.
        seconds: after these no other portion is begun.
        rows: rows of a portion.
    """
    until = None if seconds is None else time.monotonic() + seconds
    gone = 0
    for build in find(conn, "b.projection = %s AND b.state IN ('building', 'live')", retention.projection):
        if not build.loaded or build.upkeep in EVENT_GRAIN:
            continue
        slicing = time_slicing(compiler.of(conn, build).plan)
        if slicing is None:
            continue
        first = first_of(conn, slicing, retention)
        while until is None or time.monotonic() < until:
            portion = let_portion_go(conn, compiler, build, first, rows=rows)
            if portion is None:
                break
            gone += portion
    return gone


def let_portion_go(
    conn: psycopg.Connection, compiler: Compiler, build: Build, first: int, *, rows: int = ROWS
) -> int | None:
    """Let the oldest slices of a build go, and return how many of its rows went; None if none is left to go.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        compiler: makes the SQL of builds.
        build: the build, whose slices are times.
        first: the first slice that it keeps in the end.
        rows: rows of the portion, about.
    """
    with conn.transaction():
        locked = lock(conn, build.build_id, wait=True)
        if locked is None or not locked.loaded:
            return None
        if locked.retained_from is not None and locked.retained_from >= first:
            return None
        # Whoever folds events into the base takes this lock, and not that of the build.
        based = bases.find(conn, build.build_id, lock=True) is not None
        # What stands in the checksums of slices that are gone already, by a hand, must not stop it here.
        least = NO_DAY + 2 if locked.retained_from is None else locked.retained_from + 1
        border = max(least, _border(conn, build.build_id, first, rows))
        conn.execute("UPDATE refold.builds SET retained_from = %s WHERE build_id = %s", (border, build.build_id))
        compiled = compiler.of(conn, replace(locked, retained_from=border))
        gone = _delete(conn, compiled, locked, border, based=based)
        failpoint("retain_rows")
    failpoint("retain_committed")
    return gone


def _border(conn: psycopg.Connection, build_id: int, first: int, most: int) -> int:
    """Return the first slice that a portion leaves."""
    rows = 0
    for number, _, every in checksums.before(conn, build_id, first):
        if rows >= most:
            return number
        rows += every
    return first


def _delete(conn: psycopg.Connection, compiled: CompiledBuild, build: Build, border: int, *, based: bool) -> int:
    """Delete the rows of all slices before a border, but for rows without a day; return how many analysts saw."""
    slices = (NO_DAY + 1, border - 1)
    statements = compiled.statements
    seen, *behind = statements.relations
    _, condition = seen.slicing.scope([slices])
    if build.sinks:
        pairs = ", ".join(f"{quoted(name)}, {ident(name)}" for name in seen.key)
        keys = SQL(
            f"SELECT {seen.slicing.row} AS slice, jsonb_build_object({pairs}) AS key FROM {seen.table}"
            f" WHERE {condition}"
        )
        for sink_id in build.sinks:
            send(conn, sink_id, seen.key, keys)
        changed(conn, build)
    gone = conn.execute(f"DELETE FROM {seen.table} WHERE {condition}".encode()).rowcount
    others: list[Kept] = [*behind]
    if based and statements.base is not None:
        others += statements.base.tables
    for one in others:
        conn.execute(f"DELETE FROM {one.table} WHERE {one.slicing.scope([slices])[1]}".encode())
    checksums.let_go(conn, build.build_id, slices)
    return gone
