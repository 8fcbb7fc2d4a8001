"""Driving the builds of a deployment until they are live. If the command ends early, a worker continues."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from refold.engine.apply.load import Loaded
from refold.engine.apply.step import StepRunner
from refold.engine.deployment.give_up import given_up_on_errors, retired_on_errors
from refold.engine.publish.switch import NotYet, Unproved, promote
from refold.engine.reconcile.rolling import prove_suspects
from refold.store.builds.build import Build, builds_of
from refold.store.builds.compiled import Compiler
from refold.store.builds.graph import by_depth


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a build.

    Args:
        build: the build.
        events: rows of its stream that the command has applied.
        total: estimated rows of the first load; 0 if unknown.
        stage: `loading` or `catching up`.
    """

    build: Build
    events: int
    total: int
    stage: str


Told = Callable[[Progress], None]


def drive(
    conn: psycopg.Connection,
    deployment: int,
    compiler: Compiler,
    progress: Told,
    *,
    promote_them: bool = True,
    recreate_foreign: bool = False,
) -> list[Build]:
    """Load the builds of a deployment, let them catch up, and make them live together.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        deployment: number of the deployment.
        compiler: makes the SQL of the builds.
        progress: called after every step.
        promote_them: whether to go live; False leaves the builds beside the live ones, up to date.
        recreate_foreign: see `refold.engine.publish.views.switch_view`.

    Returns:
        The builds, upstream first.

    Raises:
        BuildError: a build cannot be created or kept, or the switch is not possible now. No build goes live then,
            and no worker makes it live later.
    """
    with given_up_on_errors(conn, deployment):
        return _drive(conn, deployment, compiler, progress, promote_them, recreate_foreign)


def _drive(
    conn: psycopg.Connection,
    deployment: int,
    compiler: Compiler,
    progress: Told,
    promote_them: bool,
    recreate_foreign: bool,
) -> list[Build]:
    runner = StepRunner(conn, compiler)
    applied: dict[int, int] = {}
    totals: dict[int, int] = {}
    while True:
        builds = by_depth(conn, builds_of(conn, deployment, state="building"))
        if not builds:
            # A worker has made them live.
            return by_depth(conn, builds_of(conn, deployment, state="live"))
        busy = False
        for build in builds:
            with retired_on_errors(conn, build):
                done = runner.step(build)
            if done is None:
                continue
            if isinstance(done, Loaded):
                totals[build.build_id] = done.total
            applied[build.build_id] = applied.get(build.build_id, 0) + done.events
            busy = busy or isinstance(done, Loaded) or done.full
            progress(
                Progress(
                    build,
                    applied[build.build_id],
                    totals.get(build.build_id, 0),
                    "catching up" if build.loaded else "loading",
                )
            )
        if busy:
            continue
        if any(not build.loaded for build in builds_of(conn, deployment, state="building")):
            # A worker holds them.
            time.sleep(0.02)
            continue
        if not promote_them:
            return builds
        try:
            if live := promote(conn, deployment, compiler, runner.catch_up, recreate_foreign=recreate_foreign):
                return live
            # A worker has made them live just now.
        except Unproved:
            # Audit here, because no worker need be running.
            prove_suspects(conn, compiler, by="deployment")
        except NotYet:
            time.sleep(0.02)
