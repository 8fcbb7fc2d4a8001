"""Proving a build: comparing every slice with its query under the build's lock, and healing the differences."""

from __future__ import annotations

import psycopg

from refold.engine.reconcile.audit import parameters_of
from refold.engine.reconcile.heal import heal
from refold.engine.reconcile.result import ReconcileReport
from refold.store.builds import read_checksums as reads
from refold.store.builds.build import Build
from refold.store.builds.compiled import Compiler


def prove(conn: psycopg.Connection, compiler: Compiler, build: Build) -> ReconcileReport:
    """Make a build equal its query as of its cursor, in the caller's transaction, and return the repairs.

    Unlike an audit it holds the lock all the time, for a build that readers must not see before it is correct. It does
    not heal the readers of the build.

    Args:
        conn: acts as refold_worker; the caller's transaction, which holds the lock of the build's stream.
        compiler: makes the SQL of the builds.
        build: a loaded build that is kept.
    """
    compiled = compiler.of(conn, build)
    slicing = compiled.statements.relations[0].slicing
    tables = [compiled.statements.relations[0].table, *(kept.table for kept in compiled.statements.counted[:1])]
    query = f"SELECT {slicing.event} FROM {compiled.stream.table} WHERE {compiled.stream.applied()}"
    query += "".join(f" UNION SELECT {slicing.row} FROM {table}" for table in tables)
    rows = conn.execute(query.encode(), parameters_of(conn, build)).fetchall()
    # None: a row that the build excludes.
    suspects = {int(number) for (number,) in rows if number is not None}
    result = heal(conn, compiler, build, suspects, readers=False)
    reads.take(conn, compiled, parameters_of(conn, build))
    return result
