"""`refold promote`: making builds live that wait beside the live ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psycopg

from refold.engine.apply.step import StepRunner
from refold.engine.deployment.create import make_builds, new_deployment
from refold.engine.deployment.deploy import definition_of
from refold.engine.deployment.give_up import given_up_on_errors
from refold.engine.deployment.key_indexes import key_indexes
from refold.engine.deployment.run import Told, drive
from refold.engine.reconcile.audit import parameters_of
from refold.engine.reconcile.reconcile import Reconciler
from refold.errors import BuildError
from refold.model.projection.definition import Definition
from refold.store.builds import read_checksums as reads
from refold.store.builds import state
from refold.store.builds.build import Build, builds_of, by_id, live, lock, unfinished
from refold.store.builds.compiled import Compiler
from refold.store.builds.follow import Gap, follow
from refold.store.builds.graph import by_depth
from refold.suggest import did_you_mean

BY = "refold promote"


def candidates(conn: psycopg.Connection) -> list[Build]:
    """Return the newest unfinished build of each projection, upstream first."""
    newest = {build.projection: build for build in unfinished(conn)}
    return by_depth(conn, list(newest.values()))


def go_live(
    conn: psycopg.Connection,
    folder: Path | None,
    names: Sequence[str],
    progress: Told,
    *,
    recreate_foreign: bool = False,
) -> list[Build]:
    """Let candidates catch up, and make them live at once, with the candidates that they read and that read them.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        folder: the folder of transforms, if a candidate is a transform.
        names: projections to promote; none means all candidates.
        progress: called after every step.
        recreate_foreign: if columns change, also drop and recreate views outside `metrics`.

    Returns:
        The builds that went live, upstream first; empty if there are no candidates.

    Raises:
        BuildError: a name has no candidate, or the switch is not possible now.
    """
    return go_live_by(conn, Compiler(folder), names, progress, recreate_foreign=recreate_foreign)


def go_live_by(
    conn: psycopg.Connection,
    compiler: Compiler,
    names: Sequence[str],
    progress: Told,
    *,
    recreate_foreign: bool = False,
) -> list[Build]:
    """Do the same with a compiler that the caller has."""
    for build in together(candidates(conn), names):
        if build.loaded:
            # No audit has covered the build while it waited beside the live one.
            Reconciler(conn, compiler, "slice", None, False, BY).one(build)
    with conn.transaction():
        waiting = candidates(conn)
        chosen = together(waiting, names)
        if not chosen:
            return []
        deployment = _gather(conn, compiler, chosen)
    with given_up_on_errors(conn, deployment):
        key_indexes(conn, compiler)
    return drive(conn, deployment, compiler, progress, recreate_foreign=recreate_foreign)


def views_of(conn: psycopg.Connection, builds: Sequence[Build]) -> list[str]:
    """Return the names of the views that went live with builds."""
    return sorted(_views(conn, builds) or ())


def together(waiting: Sequence[Build], names: Iterable[str]) -> list[Build]:
    """Return the candidates that must go live at once. Pure.

    A candidate goes live with the candidates that it reads and that read it: a stream must not be switched while the
    live build of its reader still reads the earlier build.

    Args:
        waiting: the candidates, upstream first.
        names: projections to promote; none means all.

    Raises:
        BuildError: a name has no candidate.
    """
    by_name = {build.projection: build for build in waiting}
    wanted = set()
    for name in names:
        if name not in by_name:
            hint = did_you_mean(name, by_name)
            raise BuildError(
                f"there is no build of {name} to promote" + (f".{hint}" if hint else ""),
                remedy=f"Waiting: {', '.join(by_name) or 'none'}. See `refold status`.",
            )
        wanted.add(by_name[name].build_id)
    if not wanted:
        return list(waiting)
    grown = True
    while grown:
        more = {b.upstream_id for b in waiting if b.build_id in wanted and b.upstream_id is not None}
        more |= {b.build_id for b in waiting if b.upstream_id in wanted}
        more &= {b.build_id for b in waiting}
        grown = not more <= wanted
        wanted |= more
    return [build for build in waiting if build.build_id in wanted]


def _gather(conn: psycopg.Connection, compiler: Compiler, chosen: Sequence[Build]) -> int:
    """Move candidates to one deployment, retire older candidates of their projections, and return the deployment."""
    state.retire_candidates(conn, [build.projection for build in chosen], but=[build.build_id for build in chosen])
    views = _views(conn, chosen)
    anew = _orphans(conn, compiler, chosen)
    # A running `refold deploy` may drive these builds: keep the number that it knows.
    together_already = builds_of(conn, *(b.deployment for b in chosen), state="building")
    if not anew and len({b.deployment for b in together_already}) == 1 and len(together_already) == len(chosen):
        deployment = chosen[0].deployment
        conn.execute(
            "UPDATE refold.deployments SET promote = true, given_up_at = NULL, given_up_because = NULL"
            " WHERE deployment = %s",
            (deployment,),
        )
        return deployment
    deployment = new_deployment(conn, "promote", promote=True, views=views)
    stay = {build.projection: build for build in chosen if build.projection not in anew}
    conn.execute(
        "UPDATE refold.builds SET deployment = %s WHERE build_id = ANY (%s)",
        (deployment, [build.build_id for build in stay.values()]),
    )
    make_builds(conn, anew.values(), deployment, resumed=stay)
    return deployment


def _views(conn: psycopg.Connection, chosen: Sequence[Build]) -> Mapping[str, str] | None:
    """Return the views of the newest deployment that created one of the candidates."""
    row = conn.execute(
        "SELECT views FROM refold.deployments WHERE deployment = ANY (%s) AND views IS NOT NULL"
        " ORDER BY deployment DESC LIMIT 1",
        ([build.deployment for build in chosen],),
    ).fetchone()
    return None if row is None else dict(row[0])


def _orphans(conn: psycopg.Connection, compiler: Compiler, chosen: Sequence[Build]) -> dict[str, Definition]:
    """Return the definitions of candidates that must be built again, because their upstream is no longer kept.

    A candidate that can follow another build of its stream does so. The others are retired here.
    """
    anew: dict[str, Definition] = {}
    for build in chosen:
        if build.upstream_id is None:
            continue
        upstream = by_id(conn, build.upstream_id)
        if upstream.projection not in anew:
            if upstream.state in ("building", "live"):
                continue
            successor = _successor(conn, build, upstream, chosen)
            if _follows(conn, compiler, build, successor):
                continue
        anew[build.projection] = definition_of(conn, compiler, build)
        state.retire(conn, build)
    return anew


def _successor(conn: psycopg.Connection, build: Build, upstream: Build, chosen: Sequence[Build]) -> Build:
    """Return the build that replaces the retired upstream of a candidate.

    Raises:
        BuildError: no build has the same definition.
    """
    taking_over = [
        *(other for other in chosen if other.projection == upstream.projection),
        live(conn, upstream.projection),
    ]
    successor = taking_over[0]
    if successor is None or successor.fingerprint != upstream.fingerprint:
        raise BuildError(
            f"{build.table_name} reads {upstream.table_name}, which is no longer kept up to date",
            remedy=f"Build it again: `refold rebuild {build.projection}`, or `refold deploy`.",
        )
    return successor


def _follows(conn: psycopg.Connection, compiler: Compiler, build: Build, successor: Build) -> bool:
    """Let a candidate follow another build of its stream if it has read the same rows; return whether it does."""
    for one in (successor, build):
        if lock(conn, one.build_id, wait=True) is None:
            raise BuildError(f"{one.table_name} was replaced just now", remedy="Run the command again.")
    try:
        with conn.transaction():
            successor = by_id(conn, successor.build_id)
            if successor.loaded:
                StepRunner(conn, compiler).catch_up(conn, successor, by_id(conn, build.build_id))
            follow(conn, build, successor)
            now = by_id(conn, build.build_id)
            compiled = compiler.of(conn, now)
            if now.loaded and reads.disagreements(conn, compiled, now, parameters_of(conn, now)):
                raise Gap(f"{now.table_name} has read other rows than {successor.table_name} holds")
    except Gap:
        return False
    return True
