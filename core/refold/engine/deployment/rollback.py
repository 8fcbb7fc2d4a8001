"""`refold rollback`: returning to the builds that were live before a deployment.

A retired build still has its table and its cursor. A rollback revives it: the build catches up from its cursor and is
promoted like any other, so that no event since is lost. A retired build neither follows its stream nor is audited. So
the rollback first applies what healing and released dead letters have changed in the stream since. It also heals rows
of the table that were changed by hand.
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
from refold.engine.reconcile.prove_build import prove
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
    """The effect of a rollback on a projection.

    Args:
        projection: name of the projection.
        action: `goes back` to an earlier build; `comes back` after the deployment had removed it; `follows` the
            earlier build of its upstream; is `removed`, because it cannot be kept on that; or `stays` as it is.
        leaves: the table that is live now.
        table: the table that is live afterwards.
        because: the reason, in a few words.
    """

    projection: str
    action: Action
    leaves: str | None
    table: str | None
    because: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The effects of a rollback.

    Args:
        revived: the builds that go live again, each with the upstream that it reads then.
        steps: the effects to show to a user, for other projections too.
    """

    revived: tuple[Build, ...]
    steps: tuple[Step, ...]


def plan(conn: psycopg.Connection, name: str) -> tuple[Step, ...]:
    """Return the effects that `rollback` would have on each projection.

    Raises:
        BuildError: there is no earlier build, or the rollback would lose another metric.
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
    """Undo the deployment that made a projection's build live: revive the builds that it retired.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        folder: the folder of transforms, if a transform goes back; it must have the version that was deployed then.
        name: the projection.
        progress: called after every step.
        recreate_foreign: if columns change, also drop and recreate views outside `metrics`.

    Returns:
        The builds that are live again, upstream first.

    Raises:
        BuildError: there is no earlier build, the code of a transform is missing, or the switch is not possible.
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
                    # Its dead letters wait again: the incident must show them.
                    recount(conn, build.build_id)
            _set_right(conn, compiler, before, decision.revived)
        key_indexes(conn, compiler)
    try:
        return drive(conn, deployment, compiler, progress, recreate_foreign=recreate_foreign)
    except Exception as error:
        # Without a connection the builds cannot be retired again, and the deployment was not given up either.
        with suppress(psycopg.OperationalError, psycopg.InterfaceError):
            _put_back(conn, [build for build in before if any(build.build_id == b.build_id for b in decision.revived)])
        if not isinstance(error, BuildError):
            raise
        raise BuildError(
            f"nothing was rolled back: {error}",
            remedy=f"Remove the cause, then run `refold rollback {name}` again.",
        ) from error


def _views_then(conn: psycopg.Connection, revived: Sequence[Build]) -> dict[str, str] | None:
    """Return the views of analysts as their files were when these builds went live."""
    row = conn.execute(
        "SELECT views FROM refold.deployments"
        " WHERE deployment <= %s AND views IS NOT NULL AND promoted_at IS NOT NULL ORDER BY deployment DESC LIMIT 1",
        (max(build.deployment for build in revived),),
    ).fetchone()
    return None if row is None else dict(row[0])


def _lock_streams(conn: psycopg.Connection, revived: Sequence[Build]) -> None:
    """Lock the live streams of revived builds: a session that changes one now does not see these readers yet.

    Raises:
        BuildError: a stream was replaced just now.
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
    """Correct revived builds as of their cursors, before readers see them.

    Retired builds are not audited, and changes of their streams other than new events have not reached them.
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
    """Compare a build with its checksums in the caller's transaction, and heal it; return whether rows differed."""
    compiled = compiler.of(conn, build)
    written = disagreements(conn, build.build_id, compiled.statements.kept)
    unread = reads.disagreements(conn, compiled, build, parameters_of(conn, build))
    if not written and not unread:
        return False
    seen = ReconcileReport()
    seen.add_slices(compiled, build.projection, [*written, *unread])
    evidence = {"table": build.table_name, "slices": [f"{one.relation}: {one.slice}" for one in seen.slices[:KEYS]]}
    incidents.detect(conn, "drift", build.projection, by=BY, evidence=evidence)
    if unread and not compiled.statements.reads_by_slice:
        # The checksums do not tell which rows the build has missed or read twice, so recompute all.
        healed = prove(conn, compiler, build)
    else:
        suspects = {one.slice for one in written}
        healed = heal(conn, compiler, build, suspects, readers=False, unread={one.slice for one in unread})
    incidents.resolve(conn, "drift", build.projection, by=BY, outcome=outcome(healed))
    return healed.drift > 0


def _changed_since(conn: psycopg.Connection, stream_id: int, instant: datetime | None) -> bool:
    """Return whether rows of a stream were healed, or events released into it, since about an instant.

    The answer is True too if the records of that time are already deleted.
    """
    # A record has the start time of its transaction; a margin of a day is longer than any of these transactions.
    row = conn.execute(
        """
        SELECT %(instant)s > clock_timestamp() -- the clock was ahead: later changes cannot be told
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
    """Retire revived builds again, so that no worker makes a refused switch later."""
    for build in builds:
        state.put_back(conn, build)


def decide(builds: Sequence[Build], name: str) -> Decision:
    """Return the builds that a rollback revives, and its effects on their readers. Pure.

    Args:
        builds: all builds, dropped ones included.
        name: the projection to roll back.

    Raises:
        BuildError: no such projection was live, its earlier build is dropped, or another metric would be lost.
    """
    live = {build.projection: build for build in builds if build.state == "live"}
    if any(b.projection == name and b.state == "building" and b.promoted_at is not None for b in builds):
        raise BuildError(
            f"a rollback of {name} is already under way",
            remedy=f"Wait for a worker to make the build live when it has caught up, or run `refold promote {name}`.",
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
    """Return the deployment that a rollback undoes: it made the live build live, or dropped the metric."""
    gone = [b for b in builds if b.projection == name and b.state == "retired" and b.promoted_at and b.retired_by]
    if name in live or not gone:
        return known(name, live).deployment
    last = max(gone, key=lambda build: (build.retired_at or build.created_at, build.number))
    return last.retired_by or 0


def _with_upstreams(builds: Sequence[Build], live: dict[str, Build], revived: dict[str, Build]) -> tuple[Build, ...]:
    """Return the revived builds, each with an upstream that is kept; revive upstreams where necessary."""
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
            # Another build of the same query. If it were behind, the revived build would have to wait for it.
            successor = current if current.cursor.covers(build.cursor) else None
        elif upstream.state == "retired":
            successor = revived[upstream.projection] = upstream
            todo.append(upstream)
        else:
            successor = None
        if successor is None:
            raise BuildError(
                f"{build.table_name} reads {upstream.table_name}, which is no longer kept up to date", remedy=_FORWARD
            )
        revived[build.projection] = replace(build, upstream_id=successor.build_id)
    return tuple(revived.values())


def _readers(builds: Sequence[Build], live: dict[str, Build], revived: dict[str, Build]) -> list[Step]:
    """Return the effects on live builds that read a replaced one, as `refold.engine.publish.switch` will cause them."""
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
                f"{found.projection} reads a metric that would go back, and its own earlier build is dropped",
                remedy=_FORWARD,
            )
        gone.add(found.build_id)
        above = next(b.projection for b in builds if b.build_id == found.upstream_id)
        steps.append(Step(found.projection, "removed", found.table_name, None, f"did not exist on that {above}"))


def _why(builds: Sequence[Build], current: Build) -> str:
    if any(b.projection == current.projection and b.number < current.number and b.promoted_at for b in builds):
        return ": its table was dropped after a later build had replaced it"
    return ": the live build is its first"


def _check_code(conn: psycopg.Connection, compiler: Compiler, build: Build) -> None:
    try:
        compiler.of(conn, build)
    except BuildError as error:
        raise BuildError(
            f"{build.table_name} needs the code that it was deployed with: {error}",
            remedy="Restore the earlier version of the file, or name a folder that has it: --projections DIR.",
        ) from error
