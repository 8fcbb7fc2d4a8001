"""Folding: adding the events of the next segment to the bases of builds, ahead of the purge, in bounded steps.

Each step folds a range of positions into one base and moves its mark, in one transaction that locks neither the build
nor the log: pages go on. What is folded counts for nothing until the purge moves the floor, so that a process may be
killed anywhere. The marks also add up what was read, which the purge compares with what the archive was proved to have.
"""

from __future__ import annotations

import psycopg

from refold.model.stream.copy_text import array
from refold.model.stream.page_sql import LOG_TABLE
from refold.model.upkeep.statements import Base
from refold.postgres.failpoints import failpoint
from refold.postgres.replica_identity import IDENTITY
from refold.postgres.rows import one_row
from refold.store import bases
from refold.store.archives import Archive
from refold.store.bases import Folded
from refold.store.builds.build import Build, by_id
from refold.store.builds.compiled import CompiledBuild, Compiler
from refold.store.builds.dead_letters import excluded_event_ids

STEP = 1 << 15
"""Positions of a step."""
SETTLED = 20_000
"""Rows of a base that a step merges."""


def fold(conn: psycopg.Connection, compiler: Compiler, build: Build, archive: Archive, *, step: int = STEP) -> bool:
    """Do the next step of folding a segment into the base of a build; return whether it is folded.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        compiler: makes the SQL of builds.
        build: a loaded build on the log that has applied all events of the segment.
        archive: the segment's file, which is verified.
        step: most positions.
    """
    base = compiler.of(conn, build).statements.base
    assert base is not None, build.table_name
    if bases.find(conn, build.build_id) is None:
        with conn.transaction():
            # Another session may be about to do the same: it waits for this row.
            if bases.begin(conn, build.build_id, build.floor):
                make_tables(conn, base)
        failpoint("fold_begun")
    with conn.transaction():
        # Before the dead letters are read: none may change then.
        mark = bases.find(conn, build.build_id, lock=True)
        if mark is None:
            return False  # Dropped just now.
        build = by_id(conn, build.build_id)
        if build.floor != archive.lower_position:
            return True  # Another session has purged it just now.
        if mark.stale or mark.upto != archive.upper_position:
            conn.execute(base.undo.encode(), {"floor": build.floor, "build": build.build_id})
            bases.aim(conn, build.build_id, build.floor, archive.upper_position)
            failpoint("fold_undone")
            return False
        if mark.folded < mark.upto:
            # Whoever lets slices go locks the mark too, and this session may have made its SQL before.
            base = compiler.of(conn, build).statements.base
            assert base is not None, build.table_name
            mark = _step(conn, base, build, mark, step)
    failpoint("fold_stepped")
    return mark.folded >= mark.upto


def undo(conn: psycopg.Connection, compiled: CompiledBuild, build: Build, position: int) -> None:
    """Take back what was folded ahead of the next purge, if it covers a position; it is folded again.

    Args:
        conn: the transaction that changes the event there; it holds the build's lock.
        compiled: the build's SQL.
        build: the build.
        position: where the event stands.
    """
    base = compiled.statements.base
    if base is None:
        return
    mark = bases.find(conn, build.build_id, lock=True)
    if mark is not None and mark.folded > position:
        conn.execute(base.undo.encode(), {"floor": build.floor, "build": build.build_id})
        bases.aim(conn, build.build_id, build.floor, mark.upto)


def make_tables(conn: psycopg.Connection, base: Base) -> None:
    """Create the tables of a base, in the caller's transaction."""
    for statement in base.create:
        conn.execute(statement.encode())
    for kept in base.tables:
        conn.execute(f"ALTER TABLE {kept.table} {IDENTITY}".encode())
        conn.execute(f"GRANT SELECT ON {kept.table} TO refold_inspector".encode())


def _step(conn: psycopg.Connection, base: Base, build: Build, mark: Folded, step: int) -> Folded:
    upper = min(mark.folded + step, mark.upto)
    conn.execute("SET LOCAL plan_cache_mode = force_custom_plan")
    events, ids, hash_ = one_row(
        conn,
        base.fold(LOG_TABLE).encode(),
        {
            "build": build.build_id,
            "lower": mark.folded,
            "upper": upper,
            "upto": mark.upto,
            "dead": array(excluded_event_ids(conn, build)),
        },
    )
    failpoint("fold_rows")
    bases.moved(conn, build.build_id, upper, int(events), ids, hash_)
    found = bases.find(conn, build.build_id)
    assert found is not None
    return found


def settle(conn: psycopg.Connection, compiler: Compiler, build: Build, *, at_most: int = SETTLED) -> int:
    """Merge rows of a base that count into one for each key; return the number of rows that were merged.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        compiler: makes the SQL of builds.
        build: a build that has a base.
        at_most: most rows.
    """
    base = compiler.of(conn, build).statements.base
    assert base is not None, build.table_name
    with conn.transaction():
        if bases.find(conn, build.build_id, lock=True) is None:
            return 0
        parameters = {"floor": build.floor, "limit": at_most, "build": build.build_id}
        return int(one_row(conn, base.settle.encode(), parameters)[0])


def add_event(conn: psycopg.Connection, compiled: CompiledBuild, build: Build, events: str, position: int) -> None:
    """Add the event of a dead letter, which has left the log, to the base of its build.

    Args:
        conn: the transaction that releases it; it holds the build's lock.
        compiled: the build's SQL.
        build: the build.
        events: the relation of the event.
        position: its position, below the build's floor.
    """
    base = compiled.statements.base
    if base is None:
        return
    conn.execute(
        base.fold(events).encode(),
        {"build": build.build_id, "lower": position, "upper": position + 1, "upto": build.floor, "dead": "{}"},
    )
