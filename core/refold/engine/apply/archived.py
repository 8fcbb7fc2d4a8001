"""The part of a first load that reads purged events: from the archive, a range of positions in each step.

The rows go into the build's own tables by the statements that load the log. When the load has reached the floor, what
they hold becomes the base of a merged build; the rows of a stream stand for themselves. `refold.bases` has the mark,
which moves in the transaction of the rows: after a kill the next step goes on there. The cursor stays where it is, for
none of these events is in the log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import psycopg

from refold.engine.apply.take_over import sound_source
from refold.engine.archive.sources import Source, Sources, purged
from refold.model.stream.cursor import EMPTY, Cursor
from refold.postgres.failpoints import failpoint
from refold.store import bases
from refold.store.builds.build import BY_KEY, Build
from refold.store.builds.compiled import CompiledBuild, Compiler

LoadPart = Callable[[CompiledBuild, Cursor, int], tuple[int, Cursor, bool]]
"""part(compiled, run, rows): loads the next rows of the stream of `compiled`; returns how many, the cursor behind them,
and whether none is left."""


@dataclass(frozen=True, slots=True)
class FromArchive:
    """Where a build that must read purged events is.

    Args:
        done: first position that it has yet to read.
        total: events that were purged.
    """

    done: int
    total: int


def left(conn: psycopg.Connection, compiled: CompiledBuild, build: Build) -> FromArchive | None:
    """Return where a build is that has purged events to read; None if it has none, or another build has what it needs.

    Args:
        conn: the caller's transaction, which holds the build's lock.
        compiled: the build's SQL.
        build: a build that is not loaded.

    Raises:
        Unreadable: the manifest does not have all of them.
    """
    if not build.based or build.upkeep in BY_KEY:
        return None
    mark = bases.find(conn, build.build_id)
    if sound_source(conn, compiled, build) if mark is None else bases.complete(conn, build.build_id, build.floor):
        return None
    total = sum(one.events or 0 for one in purged(conn) if one.lower_position < build.floor)
    return FromArchive(1 if mark is None else mark.folded, total)


def load(
    conn: psycopg.Connection,
    compiler: Compiler,
    sources: Sources,
    build: Build,
    at: FromArchive,
    run: Cursor,
    most: int,
    part: LoadPart,
) -> int:
    """Load the next range of purged positions, and return the number of its events.

    Args:
        conn: the transaction of this step, which holds the build's lock.
        compiler: makes the SQL of builds.
        sources: reads the archive.
        build: the build.
        at: where it is.
        run: the cursor of its load.
        most: positions of the range, at least a portion.
        part: loads rows of a stream.

    Raises:
        Unreadable: the archive does not have them as it was proved to.
    """
    with sources.thawing(conn, at.done, build.floor, most=most) as source:
        # Without a base, whose rows are not there yet.
        over = compiler.over(conn, replace(build, floor=1), source.relation)
        if at.done > 1:
            over = replace(over, statements=replace(over.statements, load=over.statements.load_next))
        if over.transform is not None and source.relation == source.table:
            conn.execute(f"CREATE INDEX ON {source.table} (txid, position)".encode())
        cursor, finished = Cursor(EMPTY, run.target), False
        while not finished:
            _, cursor, finished = part(over, cursor, max(source.events, 1))
        _keep_letters(conn, build, source)
        failpoint("load_archived")
        if source.upper >= build.floor:
            base = compiler.of(conn, build).statements.base
            if base is not None:
                for statement in base.taken(build.table_name):
                    conn.execute(statement.encode())
            sources.close()
    bases.loading(conn, build.build_id, source.upper, build.floor)
    return source.events


def _keep_letters(conn: psycopg.Connection, build: Build, source: Source) -> None:
    """Copy the events of dead letters, which are nowhere in the database afterwards, so that they can be released."""
    events = source.relation.removesuffix(" AS thawed")
    conn.execute(
        f"UPDATE refold.dead_letters AS d SET event = to_jsonb(e) FROM {events} AS e"
        " WHERE d.build_id = %s AND d.event_id = e.event_id AND d.event IS NULL".encode(),
        (build.build_id,),
    )
