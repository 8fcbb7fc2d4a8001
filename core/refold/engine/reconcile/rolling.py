"""The rolling deep audit: small steps that recompute all of history once in a period."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg

from refold.engine.reconcile.audit import audit
from refold.engine.reconcile.deep import Mark, advance, begin, find_mark, plan, touch
from refold.engine.reconcile.reconcile import Reconciler, streams_of
from refold.engine.reconcile.result import ReconcileReport
from refold.errors import BuildError
from refold.model.stream.slices import Range
from refold.store import incidents
from refold.store.builds.build import Build, live_builds
from refold.store.builds.compiled import CompiledBuild, Compiler
from refold.store.builds.graph import by_depth
from refold.store.builds.suspects import suspects

SECONDS = 8.0
"""Seconds for which a call audits suspects; the next call, which is due every ten seconds, continues."""


@dataclass(frozen=True, slots=True)
class Step:
    """The outcome of a step of the rolling audit.

    Args:
        projection: the projection whose slices were recomputed.
        finished: whether they were the last of this round.
        report: the findings and repairs.
    """

    projection: str
    finished: bool
    report: ReconcileReport


def step(conn: psycopg.Connection, compiler: Compiler, *, by: str = "rolling deep audit") -> Step | None:
    """Do the next step of the audit that recomputes all of history once in `refold.settings.deep_audit_days`.

    A step is a portion of a build's slices. Steps are due evenly over the period, so that the load is even. Of the
    builds with a due step, the build that was tried longest ago comes first. (The most overdue build would stay first
    for ever if its audit fails.)

    Args:
        conn: a worker's connection, in autocommit mode.
        compiler: makes the SQL of the builds, with the transforms of this process.
        by: name of the program, for the incidents.

    Returns:
        The outcome; None if no step is due.
    """
    row = conn.execute(
        "SELECT make_interval(days => deep_audit_days), clock_timestamp() FROM refold.settings"
    ).fetchone()
    assert row is not None
    period, now = row
    due: list[tuple[datetime, int, Build, CompiledBuild, Mark | None, Range]] = []
    never = datetime.min.replace(tzinfo=UTC)
    for build in (one for one in live_builds(conn) if one.loaded):
        try:
            compiled = compiler.of(conn, build)
        except BuildError:
            continue  # This process lacks the transform; another worker has it.
        mark = find_mark(conn, build.build_id, rolling=True)
        at, ranges = _due(conn, compiled, mark, period, now)
        if at <= now:
            # A clock that was ahead may have stored a try in the future, which would put the build last until then.
            tried = mark.stepped_at if mark and mark.stepped_at <= now else never
            due.append((tried, build.build_id, build, compiled, mark, ranges))
    if not due:
        return None
    _, _, build, compiled, mark, ranges = min(due, key=lambda one: one[:2])
    return _step(conn, compiler, build, compiled, mark, ranges, by)


def prove_suspects(conn: psycopg.Connection, compiler: Compiler, *, by: str) -> None:
    """Audit the builds that workers kept while the log was damaged, upstream first, in a new round without pauses.

    Builds that wait to go live come first, with the streams that they read: the builds that they replace need no audit
    after that.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        compiler: makes the SQL of the builds, with the transforms of this process.
        by: name of the program, for the incidents.

    Raises:
        BuildError: a build could not be audited; the others were.
    """
    until = time.monotonic() + SECONDS
    failed: BuildError | None = None
    for build in _waiting_first(by_depth(conn, suspects(conn))):
        try:
            compiled = compiler.of(conn, build)
        except BuildError:
            continue  # This process lacks the transform; another worker has it.
        try:
            _prove(conn, compiler, build, compiled, by, until)
        except BuildError as error:
            failed = failed or error
        if time.monotonic() >= until:
            break
    if failed is not None:
        raise failed


def _waiting_first(builds: Sequence[Build]) -> list[Build]:
    """Return builds with those first that are not live yet, and with the streams of these before them. Pure.

    Args:
        builds: the builds, upstream first.
    """
    first: set[int | None] = set()
    for build in reversed(builds):
        if build.state == "building" or build.build_id in first:
            first |= {build.build_id, build.upstream_id}
    return sorted(builds, key=lambda build: build.build_id not in first)


def _prove(
    conn: psycopg.Connection, compiler: Compiler, build: Build, compiled: CompiledBuild, by: str, until: float
) -> None:
    row = conn.execute(
        "SELECT max(resolved_at) FROM refold.incidents WHERE kind = 'log_damage' AND resolved_at <= clock_timestamp()"
    ).fetchone()
    assert row is not None
    while True:
        mark = find_mark(conn, build.build_id, rolling=True)
        # A round that began before the repair may have read damaged events.
        if mark is not None and mark.began_at <= row[0]:
            mark = begin(conn, build.build_id, mark, rolling=True)
            if mark is None:
                return
        ranges = plan(conn, compiled, None if mark is None else mark.upto_slice)[0]
        done = _step(conn, compiler, build, compiled, mark, ranges, by)
        if done is None or done.finished or time.monotonic() >= until:
            return


def _due(
    conn: psycopg.Connection, compiled: CompiledBuild, mark: Mark | None, period: timedelta, now: datetime
) -> tuple[datetime, Range]:
    """Return when the next step of a build is due, and its slices; a build that was never audited is due at once.

    A round that began or finished in the future, by a clock that was ahead, is due at once too.
    """
    if mark is None:
        return datetime.min.replace(tzinfo=UTC), plan(conn, compiled, None)[0]
    if mark.finished_at is not None:
        # After a round that took longer than the period, the next begins now, and not before the others'.
        late = max(mark.began_at, mark.finished_at) > now
        return now if late else max(mark.began_at + period, mark.finished_at), plan(conn, compiled, None)[0]
    left = plan(conn, compiled, mark.upto_slice)
    if mark.began_at > now:
        return now, left[0]
    return mark.began_at + period * (mark.steps / (mark.steps + len(left))), left[0]


def _step(
    conn: psycopg.Connection,
    compiler: Compiler,
    build: Build,
    compiled: CompiledBuild,
    mark: Mark | None,
    ranges: Range,
    by: str,
) -> Step | None:
    run = Reconciler(conn, compiler, "slice", None, False, by)
    if mark is None or mark.finished_at is not None:
        mark = begin(conn, build.build_id, mark, rolling=True)
    else:
        mark = touch(conn, mark)
    if mark is None:
        # Another worker does the step, because it considered this one lost.
        return None
    with run.audit_span(build) as span:
        suspects = audit(conn, compiled, ranges=(ranges,)).suspects
        if suspects:
            span.keep = True
            # Healing from a wrong stream would make the build wrong.
            for stream in streams_of(conn, build):
                run.one(stream)
            run.heal(build, suspects, {"depth": "deep"})
    if advance(conn, mark, ranges, differed=len(suspects)) is not None and ranges[1] is None:
        _close(conn, build, by)
    return Step(build.projection, ranges[1] is None, run.result)


def _close(conn: psycopg.Connection, build: Build, by: str) -> None:
    """Resolve an incident from before this round, which has audited all slices since."""
    mark = find_mark(conn, build.build_id, rolling=True)
    if mark is not None and incidents.find(
        conn,
        "i.kind = 'drift' AND i.subject = %s AND i.resolved_at IS NULL"
        " AND (i.detected_at < %s OR i.detected_at > clock_timestamp())",
        build.projection,
        mark.began_at,
    ):
        incidents.resolve(conn, "drift", build.projection, by=by, outcome={"found": "recomputed, and equal"})
