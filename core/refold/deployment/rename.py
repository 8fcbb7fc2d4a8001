"""`refold rename`: a metric under another name, with the rows that it has: the query is the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from refold.builds.build import Build, kept, lock
from refold.builds.lookup import known
from refold.builds.make import new_deployment
from refold.builds.views import METRICS_SCHEMA, dependants_of, once_let_go, stands
from refold.deployment.deploy import one_at_a_time
from refold.deployment.removal import PATIENCE_S
from refold.errors import BuildError
from refold.projections.definition import check_name


@dataclass(frozen=True, slots=True)
class Renamed:
    """What a renaming does.

    Args:
        build: the live build, as it was before.
        name: what its metric is called from now on.
        views: those that read the metric, and go on doing so.
    """

    build: Build
    name: str
    views: tuple[str, ...]


def plan(conn: psycopg.Connection, old: str, new: str) -> Renamed:
    """What `rename` would do.

    Raises:
        BuildError: no metric is called `old`, `new` is taken, or a projection reads the metric by its name.
        DefinitionError: `new` cannot be the name of a projection.
    """
    check_name(Path(f"{new}.sql"))
    builds = kept(conn)
    build = decide(builds, old, new)
    if stands(conn, new):
        raise BuildError(f"there is a view metrics.{new} already", remedy="Choose another name, or drop the view.")
    views = tuple(f"{one.schema}.{one.name}" for one in dependants_of(conn, old)) if stands(conn, old) else ()
    return Renamed(build, new, views)


def rename(conn: psycopg.Connection, old: str, new: str) -> Renamed:
    """Calls a live metric by another name: its view and its builds, those for a rollback among them.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        old: what it is called.
        new: what it shall be called.

    Raises:
        BuildError: see `plan`; or a session holds the view all the time.
    """
    with one_at_a_time(conn, "rename a metric"):
        return once_let_go(
            conn,
            PATIENCE_S,
            lambda: _rename(conn, old, new),
            held=f"a session holds metrics.{old} for longer than {PATIENCE_S:.0f} s",
            then="rename again",
        )


def _rename(conn: psycopg.Connection, old: str, new: str) -> Renamed:
    build = decide(kept(conn), old, new)
    if lock(conn, build.build_id, wait=True, readers=True) is None:
        raise BuildError(f"{build.table_name} was replaced just now", remedy="Run the command again.")
    renamed = plan(conn, old, new)
    deployment = new_deployment(conn, "rename", promote=False)
    conn.execute("UPDATE refold.deployments SET promoted_at = now() WHERE deployment = %s", (deployment,))
    if stands(conn, old):
        view = sql.Identifier(METRICS_SCHEMA, old)
        conn.execute(sql.SQL("ALTER VIEW {} RENAME TO {}").format(view, sql.Identifier(new)))
    # A metric of that name may have been dropped: its builds keep their numbers.
    conn.execute(
        """
        UPDATE refold.builds SET
            projection = %(new)s,
            number = number + (SELECT coalesce(max(number), 0) FROM refold.builds WHERE projection = %(new)s)
        WHERE projection = %(old)s
        """,
        {"old": old, "new": new},
    )
    return renamed


def decide(builds: Sequence[Build], old: str, new: str) -> Build:
    """The live build of a metric that can be called otherwise. Pure.

    Args:
        builds: those that are kept.
        old: what it is called.
        new: what it shall be called.

    Raises:
        BuildError: see `plan`.
    """
    build = known(old, {one.projection: one for one in builds if one.state == "live"})
    if any(one.projection == new for one in builds):
        raise BuildError(f"there is a metric {new} already", remedy="Choose another name.")
    if any(one.projection == old and one.state == "building" for one in builds):
        raise BuildError(
            f"another build of {old} is on its way", remedy="Let it go live first: `refold promote`, or a worker."
        )
    readers = sorted({one.projection for one in builds if one.upstream_id == build.build_id})
    if readers:
        raise BuildError(
            f"{', '.join(readers)} {'reads' if len(readers) == 1 else 'read'} {old} by its name",
            remedy=f"Deploy it as {new}, with what reads it changed, then `refold drop {old}`.",
        )
    return build
