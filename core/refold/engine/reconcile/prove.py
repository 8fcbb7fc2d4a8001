"""Proving a build: every slice is compared with its query under the build's lock, and healed where it differs."""

from __future__ import annotations

import psycopg

from refold.engine.reconcile.audit import parameters_of
from refold.engine.reconcile.heal import heal
from refold.engine.reconcile.result import ReconcileReport
from refold.store.builds import read_checksums as reads
from refold.store.builds.build import Build
from refold.store.builds.compiled import Compiler


def prove(conn: psycopg.Connection, compiler: Compiler, build: Build) -> ReconcileReport:
    """Makes a build what its query is as of its cursor, in the caller's transaction; gives what was healed.

    An audit takes no locks, which is better where the build may have moved on by the time it is healed. This is for
    one that must not be seen before it is right. What reads it is left alone.

    Args:
        conn: acts as refold_worker; the caller's transaction, which holds the lock of the build's stream.
        compiler: the SQL of the builds.
        build: a loaded build that is kept.
    """
    compiled = compiler.of(conn, build)
    slicing = compiled.statements.relations[0].slicing
    rows = conn.execute(
        f"SELECT {slicing.event} FROM {compiled.stream.table} WHERE {compiled.stream.applied()}"
        f" UNION SELECT {slicing.row} FROM {compiled.statements.relations[0].table}".encode(),
        parameters_of(conn, build),
    ).fetchall()
    # None: a row that the build leaves out.
    suspects = {int(number) for (number,) in rows if number is not None}
    result = heal(conn, compiler, build, suspects, readers=False)
    reads.take(conn, compiled, parameters_of(conn, build))
    return result
