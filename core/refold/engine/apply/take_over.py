"""The start of a first load when events have left the log: what stands for them comes from another build.

A build of the same fingerprint has the same base, or the same rows below the floor. The live log gives the rest. Any
other build, and one that would start from what is damaged, reads the archive first (`refold.engine.apply.archived`), or
is refused when it is made if it would need the purged events of a key again.
"""

from __future__ import annotations

from dataclasses import replace

import psycopg

from refold.errors import BuildError
from refold.model.sql_text import ident
from refold.model.stream.slices import POSITION_BITS
from refold.model.upkeep.statements import Kept
from refold.postgres.rows import one_row
from refold.store import bases
from refold.store.builds.build import Build
from refold.store.builds.checksums import disagreements
from refold.store.builds.compiled import CompiledBuild
from refold.store.builds.dead_letters import copy_letters

REMEDY = (
    "Let it read a projection with a row for each event: its rows stay when events leave the log. Of a metric that was"
    " live already, the definition as it was can be deployed."
)


def source_of(conn: psycopg.Connection, build: Build) -> str | None:
    """Return the table of another build that has what stands for the purged events; None if there is none.

    The build is kept until the transaction ends.

    Args:
        conn: the caller's transaction.
        build: a build on the log.
    """
    row = conn.execute(
        """
        SELECT b.table_name FROM refold.builds AS b
        WHERE b.projection = %s AND b.fingerprint = %s AND b.upkeep = %s AND b.upstream_id IS NULL AND b.floor = %s
          AND b.retained_from IS NOT DISTINCT FROM %s
          AND b.loaded AND b.state IN ('building', 'live', 'retired') AND b.build_id <> %s
        ORDER BY b.state <> 'live', b.build_id DESC LIMIT 1 FOR KEY SHARE
        """,
        (build.projection, build.fingerprint, build.upkeep, build.floor, build.retained_from, build.build_id),
    ).fetchone()
    return None if row is None else str(row[0])


def sound_source(conn: psycopg.Connection, compiled: CompiledBuild, build: Build) -> str | None:
    """Return the table that `source_of` does, if it is as refold wrote it; None otherwise, or if there is none.

    A damaged row would get a checksum in the new build, so that no audit would find it any more.

    Args:
        conn: the caller's transaction.
        compiled: the SQL of the build.
        build: a build on the log.
    """
    other = source_of(conn, build)
    if other is None:
        return None
    (other_id,) = one_row(conn, "SELECT build_id FROM refold.builds WHERE table_name = %s", (other,))
    statements = compiled.statements
    own = statements.relations[0].table

    def of_other(kept: Kept) -> Kept:
        return replace(kept, table=f"refold_builds.{ident(other)}{kept.table.removeprefix(own)}")

    if statements.base is not None:
        bases_of = [of_other(one) for one in statements.base.tables]
        wrong = disagreements(conn, int(other_id), bases_of, first=len(statements.relations))
    else:
        standing = [(0, build.floor >> POSITION_BITS)]
        wrong = disagreements(conn, int(other_id), [of_other(one) for one in statements.relations], standing)
    return None if wrong else other


def missing(build: Build, floor: int) -> str:
    """Return the error of a build that has no other to start from, in words."""
    return (
        f"{build.projection} has to read the log from its begin, and the events before position {floor:,} were purged"
    )


def start(conn: psycopg.Connection, compiled: CompiledBuild, build: Build, *, judged: bool = False) -> None:
    """Fill the empty tables of a build with what stands for purged events, before the first step of its load.

    Args:
        conn: the transaction of this step, which holds the build's lock.
        compiled: the build's SQL.
        build: the build, whose floor is above the log's begin.
        judged: whether `sound_source` was asked in this transaction: it reads all that is taken over.

    Raises:
        BuildError: there is no build to take it from.
    """
    statements = compiled.statements
    # A load that starts over has kept its own.
    if bases.find(conn, build.build_id) is None:
        other = source_of(conn, build) if judged else sound_source(conn, compiled, build)
        if other is None:
            raise BuildError(missing(build, build.floor), remedy=REMEDY)
        parameters = {"floor": build.floor}
        if statements.base is not None:
            conn.execute(statements.base.copy(other).encode(), parameters)
        else:
            assert statements.standing is not None, build.table_name
            conn.execute(statements.standing(other).encode(), parameters)
        bases.begin(conn, build.build_id, build.floor)
        copy_letters(conn, build, other)
    if statements.base is not None:
        for statement in statements.base.load:
            conn.execute(statement.encode(), {})
