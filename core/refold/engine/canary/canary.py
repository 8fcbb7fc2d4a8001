"""Starting, holding, promoting and aborting a canary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from refold.engine.deployment.deploy import one_at_a_time
from refold.engine.deployment.promote import candidates, go_live, together
from refold.engine.deployment.run import Told
from refold.engine.publish.canary_views import alone, left_over, show
from refold.engine.publish.views import once_let_go
from refold.errors import BuildError, InputError
from refold.model.canary.expect import parse
from refold.postgres.failpoints import failpoint
from refold.store import canaries, incidents
from refold.store.builds import state
from refold.store.builds.build import Build, by_ids, lock
from refold.store.builds.compiled import Compiler
from refold.store.builds.dead_letters import settle
from refold.store.builds.graph import by_depth
from refold.store.canaries import Canary
from refold.suggest import did_you_mean

STEPS = (1, 10, 50, 100)
"""Percent of readers, step by step, by default."""
SOAK = timedelta(hours=1)
"""Least time at each step, by default."""
LOCK_WAIT_S = 30.0
"""Seconds for which a command tries to lock views and builds."""


def start(
    conn: psycopg.Connection,
    compiler: Compiler,
    name: str,
    *,
    steps: Sequence[int] = STEPS,
    soak: timedelta = SOAK,
    expect: Sequence[str] = (),
) -> Canary:
    """Show the candidate of a metric to the readers of the first step, with the candidates that go live with it.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        compiler: makes the SQL of builds; it has the code of transforms that are candidates.
        name: the metric.
        steps: percent of readers, step by step.
        soak: least time at each step.
        expect: which differences are expected, see `refold.model.canary.expect`.

    Raises:
        BuildError: no build of the metric waits, it still loads or goes live by itself, or a canary runs already.
        InputError: a step or an expectation is wrong.
    """
    _refuse_steps(steps)
    parse(expect)
    with one_at_a_time(conn, "start a canary"):
        return once_let_go(
            conn,
            LOCK_WAIT_S,
            lambda: _start(conn, compiler, name, steps, soak, expect),
            held=f"a session has held the views or builds for longer than {LOCK_WAIT_S:.0f} s",
            then="`refold canary start` again",
        )


def start_all(
    conn: psycopg.Connection,
    compiler: Compiler,
    builds: Sequence[Build],
    steps: Sequence[int],
    soak: timedelta,
    expect: Sequence[str],
) -> list[Canary]:
    """Start a canary for each group of new builds that go live together; arguments and errors as for `start`."""
    started: list[Canary] = []
    for build in builds:
        if not any(build.projection in one.names for one in started):
            started.append(start(conn, compiler, build.projection, steps=steps, soak=soak, expect=expect))
    return started


def _start(
    conn: psycopg.Connection,
    compiler: Compiler,
    name: str,
    steps: Sequence[int],
    soak: timedelta,
    expect: Sequence[str],
) -> Canary:
    # Of candidates that a later deploy has replaced.
    supersede(conn)
    chosen = together(candidates(conn), [name])
    for build in chosen:
        running = canaries.of(conn, build.projection)
        if running is not None:
            raise BuildError(
                f"a canary of {build.projection} runs already",
                remedy=f"`refold canary status` shows it; `refold canary abort {build.projection}` ends it.",
            )
        if not build.loaded:
            raise BuildError(
                f"{build.table_name} is still loading", remedy="`refold status` shows its progress. Start it later."
            )
        if lock(conn, build.build_id, wait=True) is None:
            raise BuildError(f"{build.table_name} was replaced just now", remedy="Run the command again.")
    if conn.execute(
        "SELECT FROM refold.deployments WHERE deployment = ANY (%s) AND promote AND given_up_at IS NULL",
        ([build.deployment for build in chosen],),
    ).rowcount:
        raise BuildError(
            f"the build of {name} goes live by itself",
            remedy="Make it with `refold deploy --no-promote`, or with `refold deploy --canary`.",
        )
    number = canaries.add(conn, steps, soak, expect)
    for build in chosen:
        # Of a canary that ended, and whose views nobody has put right yet.
        if canaries.shown(conn, build.projection):
            alone(conn, compiler, build.projection)
        show(conn, compiler, number, build)
        incidents.resolve(conn, "canary_aborted", build.projection, by="canary", outcome={"because": "a new canary"})
        failpoint("canary_shown")
    (canary,) = canaries.find(conn, "c.canary_id = %s", number)
    return canary


def resume(conn: psycopg.Connection, canary: Canary) -> Canary:
    """Let a held canary go on; its step soaks again."""
    canaries.resume(conn, canary)
    return known(conn, canary.names[0])


def known(conn: psycopg.Connection, name: str) -> Canary:
    """Return the open canary of a metric.

    Raises:
        BuildError: there is none.
    """
    found = canaries.of(conn, name)
    if found is not None:
        return found
    names = [one for canary in canaries.open_canaries(conn) for one in canary.names]
    raise BuildError(
        f"no canary of {name} runs.{did_you_mean(name, names)}",
        remedy=f"Running: {', '.join(names) or 'none'}. `refold canary start NAME` starts one.",
    )


def hold(conn: psycopg.Connection, name: str, because: str) -> Canary:
    """Keep a canary at its step until it is started again, promoted or aborted; faults still abort it.

    Raises:
        BuildError: no canary of the metric runs.
    """
    canaries.hold(conn, known(conn, name), because)
    return known(conn, name)


def limit(conn: psycopg.Connection, name: str, at_most: int) -> Canary:
    """Let no more than this percentage of readers see a canary, at any step; the rules go on.

    A limit below the step takes the candidate from readers who have seen it: 0 takes it from all but those who chose
    it themselves.

    Args:
        conn: acts as refold_worker.
        name: a metric of the canary.
        at_most: the percentage; 100 lifts the limit.

    Raises:
        BuildError: no canary of the metric runs.
        InputError: it is no percentage.
    """
    if not 0 <= at_most <= 100:
        raise InputError(f"{at_most} is no percentage", remedy="Give a number from 0 to 100.")
    canaries.limit(conn, known(conn, name), at_most)
    return known(conn, name)


def promote(conn: psycopg.Connection, folder: Path | None, name: str, progress: Told) -> list[Build]:
    """Make the candidates of a canary live for all readers; return the builds.

    Raises:
        BuildError: no canary of the metric runs, or the switch is not possible now.
    """
    return go_live(conn, folder, known(conn, name).names, progress)


def abort(conn: psycopg.Connection, compiler: Compiler, name: str, because: str) -> Canary:
    """End a canary and retire its candidates: every reader sees the live builds.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        compiler: makes the SQL of builds.
        name: a metric of the canary.
        because: the reason.

    Raises:
        BuildError: no canary of the metric runs, or a session holds a view for too long. Readers see the live builds
            even then.
    """
    canary = known(conn, name)
    if not canaries.end(conn, canary.canary_id, "aborted", because):
        raise BuildError(f"the canary of {name} has ended just now")
    failpoint("canary_ended")
    tidy(conn, compiler)
    return canary


def abort_by_rule(conn: psycopg.Connection, canary: Canary, because: str, evidence: Mapping[str, Any]) -> None:
    """End a canary and open the incident `canary_aborted`; `tidy` retires its candidates.

    Nothing that holds a view or a build may keep readers with a wrong candidate, so this takes no lock on either.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        canary: the canary.
        because: the reason.
        evidence: what was seen.
    """
    with conn.transaction():
        if canaries.end(conn, canary.canary_id, "aborted", because):
            incidents.detect(
                conn,
                "canary_aborted",
                canary.names[0],
                by="canary",
                evidence={
                    "because": because,
                    "metrics": canary.names,
                    "apart": canary.apart,
                    "percent": canary.percent,
                    **evidence,
                },
            )


def supersede(conn: psycopg.Connection) -> None:
    """End the canaries of which a candidate does not wait any more."""
    for canary in canaries.open_canaries(conn):
        gone = [one for one in by_ids(conn, [b.build_id for b in canary.builds]) if one.state != "building"]
        if gone:
            canaries.end(conn, canary.canary_id, "superseded", f"{gone[0].table_name} is {gone[0].state}")


def tidy(conn: psycopg.Connection, compiler: Compiler, *, seconds: float | None = None) -> list[str]:
    """Retire the candidates of aborted canaries, and put the views right of all that have ended; return the metrics.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        compiler: makes the SQL of builds.
        seconds: for how long to try while sessions hold a view.

    Raises:
        BuildError: a session holds a view for too long.
    """
    supersede(conn)
    found = left_over(conn)
    wait = LOCK_WAIT_S if seconds is None else seconds
    for name in found:
        once_let_go(
            conn,
            wait,
            partial(_tidy, conn, compiler, name),
            held=f"a session has held metrics.{name} for longer than {wait:g} s",
            then="wait a minute for a worker to put the view right",
        )
    return found


def _tidy(conn: psycopg.Connection, compiler: Compiler, name: str) -> None:
    shown = canaries.shown(conn, name)
    if not shown:
        return
    (canary,) = canaries.find(conn, "c.canary_id = %s", shown[0].canary_id)
    if canary.state == "aborted":
        # What reads a candidate ends before it, and no newer build of the metric ends.
        for build in reversed(by_depth(conn, by_ids(conn, [one.build_id for one in canary.builds]))):
            if build.state == "building" and lock(conn, build.build_id, wait=True) is not None:
                state.retire(conn, build)
                settle(conn, build)
    alone(conn, compiler, name)
    failpoint("canary_alone")


def _refuse_steps(steps: Sequence[int]) -> None:
    if not steps or any(not 0 <= one <= 100 for one in steps) or list(steps) != sorted(set(steps)):
        raise InputError(
            f"steps must ascend from 0 to 100 percent: {', '.join(map(str, steps)) or 'none'}",
            remedy="Write for example --steps 1,10,50,100.",
        )
