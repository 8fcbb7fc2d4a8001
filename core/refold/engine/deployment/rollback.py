"""`refold rollback`: back to the builds that were live before a deployment.

A retired build still has its table and its cursor. It is kept again: it catches up from where it stopped and is
promoted like any other build, so that going back loses no event that arrived since. While it is retired it is nobody's
reader, and nobody audits it: what healing or a released dead letter has changed in the stream since, it gets here, and
what somebody has changed in its table is healed before anybody sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

import psycopg

from refold.engine.deployment.create import new_deployment
from refold.engine.deployment.deploy import one_at_a_time
from refold.engine.deployment.key_indexes import key_indexes
from refold.engine.deployment.run import Told, drive
from refold.engine.reconcile.audit import parameters_of
from refold.engine.reconcile.heal import heal
from refold.engine.reconcile.prove import prove
from refold.engine.reconcile.reconcile import KEYS, outcome
from refold.engine.reconcile.result import ReconcileReport
from refold.errors import BuildError
from refold.store import incidents
from refold.store.builds import read_checksums as reads
from refold.store.builds import state
from refold.store.builds.build import Build, all_builds, by_id, by_ids, lock
from refold.store.builds.checksums import disagreements
from refold.store.builds.compiled import Compiler
from refold.store.builds.dead_letters import recount
from refold.store.builds.follow import follow
from refold.store.builds.graph import by_depth, depths
from refold.store.builds.lookup import known

Action = Literal["goes back", "comes back", "follows", "removed", "stays"]

BY = "refold rollback"
_FORWARD = "Change its file back and run `refold deploy`."


@dataclass(frozen=True, slots=True)
class Step:
    """What a rollback does to one projection.

    Args:
        projection: which.
        action: `goes back` to an earlier build; `comes back`, was removed by the deployment; `follows`, reads the
            earlier build of its upstream from now on; `removed`, cannot be kept on it; `stays` as it is.
        leaves: the table that is live now.
        table: the table that is live afterwards.
        because: why, in a few words.
    """

    projection: str
    action: Action
    leaves: str | None
    table: str | None
    because: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a rollback does.

    Args:
        revived: the builds that go live again, with the upstream that each reads then.
        steps: the same for people, with the consequences for others.
    """

    revived: tuple[Build, ...]
    steps: tuple[Step, ...]


def plan(conn: psycopg.Connection, name: str) -> tuple[Step, ...]:
    """What `rollback` would do.

    Raises:
        BuildError: nothing to go back to, or not without losing another metric.
    """
    return decide(all_builds(conn), name).steps


def rollback(
    conn: psycopg.Connection,
    folder: Path | None,
    name: str,
    progress: Told,
    *,
    recreate_foreign: bool = False,
) -> list[Build]:
    """Undoes the deployment that made a projection's build live, and keeps what it retired again.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        folder: the folder of transforms, if any goes back: it must have the version that was deployed then.
        name: the projection.
        progress: told of every step.
        recreate_foreign: where columns change, make views of others again.

    Returns:
        The builds that are live again, upstream first.

    Raises:
        BuildError: nothing to go back to, a transform's earlier version is missing, or the switch is not possible.
    """
    compiler = Compiler(folder)
    with one_at_a_time(conn, "begin a rollback"):
        with conn.transaction():
            before = all_builds(conn)
            decision = decide(before, name)
            for build in decision.revived:
                _check_code(conn, compiler, build)
            views = _views_then(conn, decision.revived)
            deployment = new_deployment(conn, "rollback", promote=True, views=views)
            _lock_streams(conn, decision.revived)
            for build in decision.revived:
                state.revive(conn, build, deployment)
                if build.dead_letters:
                    # They wait again, and somebody should know.
                    recount(conn, build.build_id)
            _set_right(conn, compiler, before, decision.revived)
        key_indexes(conn, compiler)
    try:
        return drive(conn, deployment, compiler, progress, recreate_foreign=recreate_foreign)
    except Exception as error:
        # Without a connection nothing can be put back, and the deployment was not given up either.
        with suppress(psycopg.OperationalError, psycopg.InterfaceError):
            _put_back(conn, [build for build in before if any(build.build_id == b.build_id for b in decision.revived)])
        if not isinstance(error, BuildError):
            raise
        raise BuildError(
            f"nothing was rolled back: {error}",
            remedy=f"End or drop what stands in the way, then `refold rollback {name}` again.",
        ) from error


def _views_then(conn: psycopg.Connection, revived: Sequence[Build]) -> dict[str, str] | None:
    """The views of analysts as their files were when these builds went live."""
    row = conn.execute(
        "SELECT views FROM refold.deployments"
        " WHERE deployment <= %s AND views IS NOT NULL AND promoted_at IS NOT NULL ORDER BY deployment DESC LIMIT 1",
        (max(build.deployment for build in revived),),
    ).fetchone()
    return None if row is None else dict(row[0])


def _lock_streams(conn: psycopg.Connection, revived: Sequence[Build]) -> None:
    """Locks the live streams that revived builds go on with: who changes them now has not seen these readers yet.

    Raises:
        BuildError: one was replaced just now.
    """
    own = {build.build_id for build in revived}
    ids = {build.upstream_id for build in revived if build.upstream_id is not None} - own
    for stream in by_depth(conn, by_ids(conn, ids)):
        if lock(conn, stream.build_id, wait=True) is None:
            raise BuildError(f"{stream.table_name} was replaced just now", remedy="Run the command again.")


def _set_right(
    conn: psycopg.Connection,
    compiler: Compiler,
    before: Sequence[Build],
    revived: Sequence[Build],
) -> None:
    """Makes revived builds what they must be as of their cursors, before anybody sees them.

    Nobody has audited them while they were retired, and what their streams have become since, other than by new
    events, has not reached them.
    """
    streams_then = {build.build_id: build.upstream_id for build in before}
    own = {build.build_id: build for build in revived}
    order = depths((build.build_id, own.get(build.build_id, build).upstream_id) for build in before)
    changed: set[int] = set()

    def proved(build: Build) -> None:
        if prove(conn, compiler, build).drift:
            changed.add(build.build_id)

    for build in sorted(revived, key=lambda build: (order[build.build_id], build.build_id)):
        now = by_id(conn, build.build_id)
        if build.upstream_id is not None and build.upstream_id != streams_then[build.build_id]:
            follow(conn, now, by_id(conn, build.upstream_id), prove=proved)
        elif not now.loaded:
            continue
        elif build.upstream_id is not None and (
            build.upstream_id in changed or _changed_since(conn, build.upstream_id, build.retired_at)
        ):
            proved(now)
        elif _tampered_with(conn, compiler, now):
            changed.add(build.build_id)


def _tampered_with(conn: psycopg.Connection, compiler: Compiler, build: Build) -> bool:
    """Compares a build with its checksums, in the caller's transaction, and heals what differs; whether rows did."""
    compiled = compiler.of(conn, build)
    written = disagreements(conn, build.build_id, compiled.statements.relations)
    unread = reads.disagreements(conn, compiled, build, parameters_of(conn, build))
    if not written and not unread:
        return False
    seen = ReconcileReport()
    seen.add_slices(compiled, build.projection, [*written, *unread])
    evidence = {"table": build.table_name, "slices": [f"{one.relation}: {one.slice}" for one in seen.slices[:KEYS]]}
    incidents.detect(conn, "drift", build.projection, by=BY, evidence=evidence)
    if unread and not compiled.statements.reads_by_slice:
        # Which rows they were that it has not read, or twice, nobody knows.
        healed = prove(conn, compiler, build)
    else:
        suspects = {one.slice for one in written}
        healed = heal(conn, compiler, build, suspects, readers=False, unread={one.slice for one in unread})
    incidents.resolve(conn, "drift", build.projection, by=BY, outcome=outcome(healed))
    return healed.drift > 0


def _changed_since(conn: psycopg.Connection, stream_id: int, instant: datetime | None) -> bool:
    """Whether rows of a stream were healed, or events released into it, after an instant or about then.

    Also where nobody knows any more, because the records of then are gone.
    """
    # The times are those at which transactions began: the margin is longer than any of these.
    row = conn.execute(
        """
        SELECT %(instant)s > clock_timestamp() -- by a clock that was ahead: nobody knows what came later
            OR %(instant)s - interval '1 day' <= clock_timestamp() - (
                   SELECT make_interval(days => repair_days) FROM refold.settings)
            OR EXISTS (SELECT FROM refold.repairs
                       WHERE build_id = %(stream)s AND repaired_at > %(instant)s - interval '1 day')
            OR EXISTS (SELECT FROM refold.dead_letters
                       WHERE build_id = %(stream)s AND state = 'released' AND ended_at > %(instant)s - interval '1 day')
        """,
        {"stream": stream_id, "instant": instant},
    ).fetchone()
    return row == (True,)


def _put_back(conn: psycopg.Connection, builds: Sequence[Build]) -> None:
    """Retires revived builds as they were: a refused switch must not be made later by a worker."""
    for build in builds:
        state.put_back(conn, build)


def decide(builds: Sequence[Build], name: str) -> Decision:
    """Which builds are revived, and what becomes of everything that reads them. Pure.

    Args:
        builds: all builds there ever were.
        name: the projection to take back.

    Raises:
        BuildError: no such projection was live, its earlier build is gone, or another metric would be lost.
    """
    live = {build.projection: build for build in builds if build.state == "live"}
    if any(b.projection == name and b.state == "building" and b.promoted_at is not None for b in builds):
        raise BuildError(
            f"an earlier build of {name} is on its way back already",
            remedy=f"A worker makes it live as soon as it has caught up; so does `refold promote {name}`.",
        )
    deployment = _undone(builds, live, name)
    revived: dict[str, Build] = {}
    stays: list[Step] = []
    for build in builds:
        if build.retired_by != deployment or build.state != "retired" or build.promoted_at is None:
            continue
        current = live.get(build.projection)
        if current is None or current.deployment == deployment:
            revived[build.projection] = build
        else:
            stays.append(Step(build.projection, "stays", current.table_name, current.table_name, "changed again since"))
    if name not in revived:
        raise BuildError(f"there is no build of {name} to go back to{_why(builds, live[name])}", remedy=_FORWARD)
    resolved = _with_upstreams(builds, live, revived)
    back = [
        Step(
            build.projection,
            "goes back" if build.projection in live else "comes back",
            live[build.projection].table_name if build.projection in live else None,
            build.table_name,
            "" if build.projection == name else f"went {'live' if name in live else 'away'} together with {name}",
        )
        for build in resolved
    ]
    readers = _readers(builds, live, {build.projection: build for build in resolved})
    return Decision(resolved, (*back, *readers, *stays))


def _undone(builds: Sequence[Build], live: dict[str, Build], name: str) -> int:
    """The deployment that a rollback undoes: the one that made the live build so, or took the metric away."""
    gone = [b for b in builds if b.projection == name and b.state == "retired" and b.promoted_at and b.retired_by]
    if name in live or not gone:
        return known(name, live).deployment
    last = max(gone, key=lambda build: (build.retired_at or build.created_at, build.number))
    return last.retired_by or 0


def _with_upstreams(builds: Sequence[Build], live: dict[str, Build], revived: dict[str, Build]) -> tuple[Build, ...]:
    """Finds for each revived build an upstream that is kept; revives that too where need be."""
    by_id = {build.build_id: build for build in builds}
    todo = list(revived.values())
    while todo:
        build = todo.pop()
        if build.upstream_id is None:
            continue
        upstream = by_id[build.upstream_id]
        back = revived.get(upstream.projection)
        current = live.get(upstream.projection)
        if back is not None:
            successor = back if back.fingerprint == upstream.fingerprint else None
        elif upstream.state in ("live", "building"):
            successor = upstream
        elif current is not None and current.fingerprint == upstream.fingerprint:
            # The same query under another number. One that is behind could not be read without waiting for it.
            successor = current if current.cursor.covers(build.cursor) else None
        elif upstream.state == "retired":
            successor = revived[upstream.projection] = upstream
            todo.append(upstream)
        else:
            successor = None
        if successor is None:
            raise BuildError(
                f"{build.table_name} reads {upstream.table_name}, which is not kept any more", remedy=_FORWARD
            )
        revived[build.projection] = replace(build, upstream_id=successor.build_id)
    return tuple(revived.values())


def _readers(builds: Sequence[Build], live: dict[str, Build], revived: dict[str, Build]) -> list[Step]:
    """What becomes of the live builds that read one that is replaced; as `refold.engine.publish.switch` will do it."""
    steps: list[Step] = []
    replaced = {live[name].build_id: build for name, build in revived.items() if name in live}
    fingerprints = {build.build_id: build.fingerprint for build in builds}
    todo = [build for build in live.values() if build.projection not in revived]
    gone: set[int] = set()
    while True:
        found = next((b for b in todo if b.upstream_id in replaced or b.upstream_id in gone), None)
        if found is None or found.upstream_id is None:
            return steps
        todo.remove(found)
        successor = replaced.get(found.upstream_id)
        if successor is not None and successor.fingerprint == fingerprints[found.upstream_id]:
            steps.append(
                Step(found.projection, "follows", found.table_name, found.table_name, f"reads {successor.table_name}")
            )
            continue
        if any(b.projection == found.projection and b.number < found.number and b.promoted_at for b in builds):
            raise BuildError(
                f"{found.projection} reads what would go back, and its own build from before is gone", remedy=_FORWARD
            )
        gone.add(found.build_id)
        above = next(b.projection for b in builds if b.build_id == found.upstream_id)
        steps.append(Step(found.projection, "removed", found.table_name, None, f"did not exist on that {above}"))


def _why(builds: Sequence[Build], current: Build) -> str:
    if any(b.projection == current.projection and b.number < current.number and b.promoted_at for b in builds):
        return ": its table was dropped when a later one took its place"
    return ": the live one is its first"


def _check_code(conn: psycopg.Connection, compiler: Compiler, build: Build) -> None:
    try:
        compiler.of(conn, build)
    except BuildError as error:
        raise BuildError(
            f"{build.table_name} needs the code it was deployed with: {error}",
            remedy="Put the earlier version of the file back, or name a folder that has it: --projections DIR.",
        ) from error
