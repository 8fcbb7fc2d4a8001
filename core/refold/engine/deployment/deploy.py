"""`refold deploy` and `refold rebuild`: from files to live builds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import psycopg

from refold.engine.deployment.contracts import ContractChange, register
from refold.engine.deployment.create import make_builds, new_deployment, statements_of
from refold.engine.deployment.give_up import given_up_on_errors
from refold.engine.deployment.key_indexes import key_indexes
from refold.engine.deployment.plan import Change, changes
from refold.engine.deployment.run import Told, drive
from refold.engine.publish.analyst_views import apply_views, refused_views
from refold.engine.publish.scans import Scan
from refold.engine.publish.shown import refused_again, shown_again
from refold.engine.publish.views import stands
from refold.engine.reconcile.reconcile import reconcile
from refold.errors import RefoldError, at_once
from refold.model.projection.definition import Definition
from refold.model.projection.view_file import ViewFile
from refold.postgres.locks import WAIT_S, alone
from refold.postgres.retry import after_deadlocks
from refold.store import incidents
from refold.store.builds import state
from refold.store.builds.build import Build, builds_of, kept, live_builds
from refold.store.builds.compiled import Compiler
from refold.store.builds.graph import by_depth
from refold.store.builds.lookup import known

BY = "refold deploy"
DEPLOYMENTS = "refold.deployments"
"""Table that commands lock while they begin a deployment or recover."""


def plan(conn: psycopg.Connection, definitions: Mapping[str, Definition]) -> list[Change]:
    """Return the changes that a deploy of these definitions would make."""
    return changes(definitions, kept(conn))


def deploy(
    conn: psycopg.Connection,
    folder: Path,
    definitions: Mapping[str, Definition],
    progress: Told,
    *,
    views: Sequence[ViewFile] = (),
    contracts: Sequence[ContractChange] = (),
    promote: bool = True,
    recreate_foreign: bool = False,
) -> list[Build]:
    """Build new and changed projections with their readers, then make all of them live at once; return the builds.

    Contracts are registered in the transaction that creates the builds: events are judged from then on.

    Views of analysts go live in the same transaction, because a view file fits either the old or the new columns.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        folder: the folder of the definitions.
        definitions: the folder's projections, upstream first.
        progress: called after every step.
        views: the views that have a file.
        contracts: the contracts to register.
        promote: whether to go live; False leaves the new builds beside the live ones, and the views for their switch.
        recreate_foreign: if columns change, also drop and recreate views outside `metrics`.

    Raises:
        BuildError: another command is deploying, or the switch is not possible now.
        DefinitionError: Postgres refuses a definition or a view (`Mistakes` if there are several).
    """
    compiler = Compiler(folder)
    with one_at_a_time(conn):
        show_again(conn, compiler, recreate_foreign=recreate_foreign)
        deployment = None
        for attempt in after_deadlocks():
            with attempt, conn.transaction():
                deployment = _begin(conn, definitions, views, promote=promote, recreate_foreign=recreate_foreign)
                register(conn, contracts)
        if deployment is None:
            apply_views(conn, views, recreate_foreign=recreate_foreign)
            return []
        with given_up_on_errors(conn, deployment):
            key_indexes(conn, compiler)
    return drive(conn, deployment, compiler, progress, promote_them=promote, recreate_foreign=recreate_foreign)


def refused(
    conn: psycopg.Connection,
    definitions: Mapping[str, Definition],
    views: Sequence[ViewFile] = (),
    unknown: Collection[str] = (),
    *,
    lost: Collection[str] = (),
    recreate_foreign: bool = False,
    scanned: list[Scan] | None = None,
) -> list[RefoldError]:
    """Return the errors for which a deploy would be refused now; change nothing.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        definitions: the projections that could be read, upstream first.
        views: the views that have a file.
        unknown: projections whose files are wrong.
        lost: metrics whose views were dropped or replaced by hand.
        recreate_foreign: as for `deploy`.
        scanned: receives the views that would read a whole stream at each read, if there are no errors.
    """
    with one_at_a_time(conn, "try a deployment"):
        for attempt in after_deadlocks():
            with attempt, conn.transaction(force_rollback=True):
                todo = plan(conn, definitions)
                deployment = new_deployment(conn, "deploy", promote=False)
                return refused_again(conn, lost) + _made(
                    conn, todo, deployment, views, unknown,
                    lost=lost, recreate_foreign=recreate_foreign, scanned=scanned,
                )  # fmt: skip
    raise AssertionError("unreachable: the attempts end with a return or an exception")


def show_again(conn: psycopg.Connection, compiler: Compiler, *, recreate_foreign: bool = False) -> list[str]:
    """Recreate the views of live metrics that were dropped or replaced; return the names of these metrics.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        compiler: makes the SQL of the builds.
        recreate_foreign: as for `deploy`.
    """
    return [
        build.projection
        for build in live_builds(conn)
        if shown_again(conn, build, compiler, by=BY, recreate_foreign=recreate_foreign)
    ]


def rebuild(
    conn: psycopg.Connection,
    folder: Path | None,
    names: Sequence[str],
    progress: Told,
    *,
    cascade: bool = False,
    promote: bool = True,
) -> list[Build]:
    """Build projections again from the log, as they are deployed, and switch to the new builds; return them.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        folder: the folder of transforms, if a transform is rebuilt.
        names: the projections to rebuild.
        progress: called after every step.
        cascade: whether to rebuild all projections that read them too.
        promote: whether to go live; False leaves the new builds beside the live ones.

    Raises:
        BuildError: a name is not live, or the switch is not possible now.
    """
    live = {build.projection: build for build in live_builds(conn)}
    wanted = {known(name, live).projection for name in names}
    grown = True
    while cascade and grown:
        below = {
            build.projection
            for build in live.values()
            if any(build.upstream_id == live[name].build_id for name in wanted)
        }
        grown = not below <= wanted
        wanted |= below
    compiler = Compiler(folder)
    stays = {build.upstream_id for build in live.values() if build.projection not in wanted}
    streams = [name for name in wanted if live[name].build_id in stays]
    if promote and streams:
        # Rows of a stream that were changed by hand are correct in its new build, but readers that are not rebuilt
        # would keep the results of the changed rows.
        reconcile(conn, compiler, streams, depth="slice", by="refold rebuild")
    with one_at_a_time(conn):
        ordered = [build for build in by_depth(conn, list(live.values())) if build.projection in wanted]
        for attempt in after_deadlocks():
            with attempt, conn.transaction():
                begun = _begun(conn, ordered) if promote else None
                deployment = begun or _begin_rebuild(conn, compiler, ordered, promote=promote)
        with given_up_on_errors(conn, deployment):
            key_indexes(conn, compiler)
    return drive(conn, deployment, compiler, progress, promote_them=promote)


def one_at_a_time(
    conn: psycopg.Connection, what: str = "begin a deployment", seconds: float = WAIT_S
) -> AbstractContextManager[None]:
    """Return a lock under which no other command begins a deployment.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        what: words for the action in the block, for the error message.
        seconds: longest time to wait for another command.

    Raises:
        BuildError: another session holds the lock; the message names it.
    """
    return alone(conn, DEPLOYMENTS, what, "refold_worker", seconds=seconds)


def _begin(
    conn: psycopg.Connection,
    definitions: Mapping[str, Definition],
    views: Sequence[ViewFile],
    *,
    promote: bool,
    recreate_foreign: bool,
) -> int | None:
    """Create empty builds of new and changed projections; return the deployment, or None if there is nothing to do.

    Errors of views are found here, before a first load that may take hours.
    """
    state.retire_orphans(conn)
    todo = plan(conn, definitions)
    _drop_abandoned(conn, todo)
    builds = any(one.builds or one.action == "resumed" for one in todo)
    deployment = 0
    if builds:
        texts = {view.name: view.source for view in views}
        deployment = new_deployment(conn, "deploy", promote=promote, views=texts)
    mistakes = _made(conn, todo, deployment, views, recreate_foreign=recreate_foreign)
    if mistakes:
        raise at_once(mistakes)
    _adopt(conn, _resumed(todo).values(), deployment)
    _taken_back(conn, todo)
    return deployment if builds else None


def _made(
    conn: psycopg.Connection,
    todo: Sequence[Change],
    deployment: int,
    views: Sequence[ViewFile],
    unknown: Collection[str] = (),
    *,
    lost: Collection[str] = (),
    recreate_foreign: bool,
    scanned: list[Scan] | None = None,
) -> list[RefoldError]:
    """Create the empty builds of a plan, try the views on top of them, and return the errors of both."""
    mistakes: list[RefoldError] = []
    resumed = _resumed(todo)
    fresh = {one.projection: one.definition for one in todo if one.builds and one.definition is not None}
    made = make_builds(conn, fresh.values(), deployment, resumed=resumed, mistakes=mistakes)
    generated = {build.projection: statements_of(fresh[build.projection], build, None) for build in made}
    metrics = {name: statements.view for name, statements in generated.items()}
    if scanned is not None:
        # Without its indexes, a stream would seem to be read in full by every view.
        for name in generated.keys() & {name for name, one in fresh.items() if one.plan.event_grain}:
            for statement in generated[name].indexes:
                conn.execute(statement.encode(), {})
    for one in todo:
        # Include a view that was dropped or replaced by hand: a deploy recreates it first.
        gone = one.action == "unchanged" and (one.projection in lost or not stands(conn, one.projection))
        if (gone or one.projection in resumed) and one.definition is not None and one.build is not None:
            metrics[one.projection] = statements_of(one.definition, one.build, None).view
    wrong = {*unknown, *fresh} - metrics.keys()
    others = None if mistakes else scanned
    return mistakes + refused_views(conn, metrics, views, wrong, recreate_foreign=recreate_foreign, scanned=others)


def _resumed(todo: Sequence[Change]) -> dict[str, Build]:
    return {one.projection: one.build for one in todo if one.action == "resumed" and one.build is not None}


def _begin_rebuild(conn: psycopg.Connection, compiler: Compiler, live: Sequence[Build], *, promote: bool) -> int:
    """Create an empty build beside each live build; return the deployment."""
    deployment = new_deployment(conn, "rebuild", promote=promote)
    make_builds(conn, [definition_of(conn, compiler, build) for build in live], deployment, resumed={})
    return deployment


def _begun(conn: psycopg.Connection, live: Sequence[Build]) -> int | None:
    """Return an unfinished rebuild of exactly these builds, interrupted or running; None if there is none.

    If a second rebuild began, workers would also load the first one and make it live.

    Args:
        conn: the caller's transaction, under the lock of deployments.
        live: the live builds to rebuild.
    """
    wanted = {build.projection: build for build in live}
    standing = {build.build_id for build in live_builds(conn)}
    rows = conn.execute(
        "SELECT deployment FROM refold.deployments"
        " WHERE kind = 'rebuild' AND promote AND promoted_at IS NULL ORDER BY deployment DESC"
    ).fetchall()
    for (deployment,) in rows:
        builds = {build.projection: build for build in builds_of(conn, deployment)}
        # Their streams are rebuilt with them, or are live.
        streams = standing | {build.build_id for build in builds.values()} | {None}
        if builds.keys() == wanted.keys() and all(
            build.state == "building" and build.fingerprint == wanted[name].fingerprint and build.upstream_id in streams
            for name, build in builds.items()
        ):
            conn.execute(
                "UPDATE refold.deployments SET given_up_at = NULL, given_up_because = NULL WHERE deployment = %s",
                (deployment,),
            )
            return int(deployment)
    return None


def definition_of(conn: psycopg.Connection, compiler: Compiler, build: Build) -> Definition:
    """Return the definition of a build, with the fingerprint of the build."""
    compiled = compiler.of(conn, build)
    return Definition(build.projection, None, build.definition, compiled.plan, build.fingerprint, compiled.transform)


def _adopt(conn: psycopg.Connection, builds: Iterable[Build], deployment: int) -> None:
    """Move unfinished builds to this deployment."""
    for build in builds:
        conn.execute("UPDATE refold.builds SET deployment = %s WHERE build_id = %s", (deployment, build.build_id))


def _taken_back(conn: psycopg.Connection, todo: Sequence[Change]) -> None:
    """Resolve the incidents of canaries whose change was taken back: the file is that of the live build again."""
    same = {one.projection for one in todo if one.action == "unchanged"}
    for incident in incidents.open_incidents(conn, "canary_aborted"):
        if incident.subject in same:
            outcome = {"because": "the file is that of the live build again"}
            incidents.resolve(conn, "canary_aborted", incident.subject, by=BY, outcome=outcome)


def _drop_abandoned(conn: psycopg.Connection, todo: Sequence[Change]) -> None:
    """Retire unfinished builds whose definition has changed since, forward or back.

    A worker would make them live as soon as they have caught up. Unfinished builds of a failed deployment are retired
    too if they have no file any more.
    """
    names = [change.projection for change in todo if change.builds or change.action == "unchanged"]
    defined = [change.projection for change in todo if change.definition is not None]
    state.retire_abandoned(conn, names, defined=defined)
    state.retire_orphans(conn)
