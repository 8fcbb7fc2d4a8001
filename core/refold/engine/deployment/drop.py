"""`refold drop`: removing metrics, so that workers no longer keep them; `refold rollback` brings them back.

Their builds are retired, as in a switch: table and cursor stay, and a rollback catches up from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from refold.engine.deployment.create import new_deployment
from refold.engine.deployment.deploy import one_at_a_time
from refold.engine.publish.canary_views import superseded
from refold.engine.publish.views import dependants_of, drop_view, once_let_go, stands
from refold.errors import BuildError
from refold.store.builds import state
from refold.store.builds.build import Build, kept, lock
from refold.store.builds.graph import by_depth
from refold.store.builds.lookup import known

LOCK_WAIT_S = 30.0
"""Seconds for which a drop tries to lock views and builds."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A build that a drop retires.

    Args:
        build: the build.
        because: its state before, in words.
    """

    build: Build
    because: str


def plan(conn: psycopg.Connection, names: Sequence[str]) -> list[Ended]:
    """Return the builds that `drop` would retire.

    Raises:
        BuildError: a name is not live, or a projection or view that is not named reads it.
    """
    builds = kept(conn)
    ended = decide(builds, names)
    _refuse_views(conn, [one.build for one in ended])
    return ended


def drop(conn: psycopg.Connection, names: Sequence[str]) -> list[Ended]:
    """Retire the builds of metrics and drop their views, in one transaction; return the builds.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        names: the metrics, with all projections that read them.

    Raises:
        BuildError: a name is not live, another projection or view reads it, or a session holds a view for too long.
    """
    with one_at_a_time(conn, "drop a metric"):
        return once_let_go(
            conn,
            LOCK_WAIT_S,
            lambda: _retire(conn, names),
            held=f"a session has held the views or builds for longer than {LOCK_WAIT_S:.0f} s",
            then="run `refold drop` again",
        )


def _retire(conn: psycopg.Connection, names: Sequence[str]) -> list[Ended]:
    for build in by_depth(conn, (one.build for one in decide(kept(conn), names))):
        # The lock also keeps other commands from creating a reader of the build.
        if lock(conn, build.build_id, wait=True, readers=True) is None:
            raise BuildError(f"{build.table_name} was replaced just now", remedy="Run the command again.")
    # Look for readers again, under the locks.
    ended = plan(conn, names)
    deployment = new_deployment(conn, "drop", promote=False)
    conn.execute("UPDATE refold.deployments SET promoted_at = now() WHERE deployment = %s", (deployment,))
    for one in ended:
        state.retire(conn, one.build, by=deployment)
        if one.build.state == "live":
            superseded(conn, one.build.projection, None)
            drop_view(conn, one.build.projection)
    return ended


def decide(builds: Sequence[Build], names: Sequence[str]) -> list[Ended]:
    """Return the builds that end when metrics are dropped. Pure.

    Args:
        builds: the builds that are kept.
        names: the metrics.

    Raises:
        BuildError: a name is not live, or another projection reads it.
    """
    live = {build.projection: build for build in builds if build.state == "live"}
    wanted = {known(name, live).projection for name in names}
    own = {build.build_id: build.projection for build in builds if build.projection in wanted}
    readers = {b.projection: own[b.upstream_id] for b in builds if b.projection not in wanted and b.upstream_id in own}
    if readers:
        told = ", ".join(f"{reader} reads {stream}" for reader, stream in sorted(readers.items()))
        raise BuildError(
            f"other metrics read a metric to drop: {told}",
            remedy=f"Drop them together: `refold drop {' '.join(sorted({*wanted, *readers}))}`",
        )
    return [
        Ended(build, "it is live" if build.state == "live" else "not finished yet")
        for build in builds
        if build.build_id in own
    ]


def _refuse_views(conn: psycopg.Connection, builds: Sequence[Build]) -> None:
    """Refuse to drop a metric on which views depend."""
    found: dict[str, str] = {}
    for build in builds:
        if build.state == "live" and stands(conn, build.projection):
            found |= {f"{one.schema}.{one.name}": build.projection for one in dependants_of(conn, build.projection)}
    if found:
        told = ", ".join(f"{view} reads metrics.{metric}" for view, metric in sorted(found.items()))
        raise BuildError(
            f"views read a metric to drop: {told}",
            remedy="Remove their files from sql/views, if they have any, and the views: "
            + " ".join(f"`DROP VIEW {view};`" for view in reversed(found)),
        )
