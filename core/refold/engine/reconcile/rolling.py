"""The rolling deep audit: a step now and then, so that all of history is recomputed once in a period."""

from __future__ import annotations

import time
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

SECONDS = 5.0
"""For which suspects are proved at a time, if there is so much; the rest is for the next time."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a step of the rolling audit did.

    Args:
        projection: whose slices were recomputed.
        finished: they were the last of this round.
        report: what was found and healed.
    """

    projection: str
    finished: bool
    report: ReconcileReport


def step(conn: psycopg.Connection, compiler: Compiler, *, by: str = "rolling deep audit") -> Step | None:
    """The next step of the audit that recomputes all of history once in `refold.settings.deep_audit_days`.

    A step is a portion of one build's slices. Steps are due evenly over the period, so that they cost the same all
    the time; of the builds with a step due the one comes first that was tried longest ago. (Not the one that is most
    overdue: where its audit fails, that would be the same one for ever.)

    Args:
        conn: a worker's, in autocommit mode.
        compiler: the SQL of the builds, and the transforms that this process has.
        by: who asks, for the incidents.

    Returns:
        None when nothing is due.
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
            continue  # Its transform is not here; another worker has it.
        mark = find_mark(conn, build.build_id, rolling=True)
        at, ranges = _due(conn, compiled, mark, period, now)
        if at <= now:
            # One that was tried in the future, by a clock that was ahead, would come after all others for as long.
            tried = mark.stepped_at if mark and mark.stepped_at <= now else never
            due.append((tried, build.build_id, build, compiled, mark, ranges))
    if not due:
        return None
    _, _, build, compiled, mark, ranges = min(due, key=lambda one: one[:2])
    return _step(conn, compiler, build, compiled, mark, ranges, by)


def prove_suspects(conn: psycopg.Connection, compiler: Compiler, *, by: str) -> None:
    """Audits what was kept while the log was damaged, upstream first: a new round of each, in steps without a pause.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        compiler: the SQL of the builds, and the transforms that this process has.
        by: who asks, for the incidents.

    Raises:
        BuildError: one could not be audited; the others were.
    """
    until = time.monotonic() + SECONDS
    failed: BuildError | None = None
    for build in by_depth(conn, suspects(conn)):
        try:
            compiled = compiler.of(conn, build)
        except BuildError:
            continue  # Its transform is not here; another worker has it.
        try:
            _prove(conn, compiler, build, compiled, by, until)
        except BuildError as error:
            failed = failed or error
        if time.monotonic() >= until:
            break
    if failed is not None:
        raise failed


def _prove(
    conn: psycopg.Connection, compiler: Compiler, build: Build, compiled: CompiledBuild, by: str, until: float
) -> None:
    row = conn.execute(
        "SELECT max(resolved_at) FROM refold.incidents WHERE kind = 'log_damage' AND resolved_at <= clock_timestamp()"
    ).fetchone()
    assert row is not None
    while True:
        mark = find_mark(conn, build.build_id, rolling=True)
        # A round that began before may have read what was damaged.
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
    """When the next step of a build is due, and which it is; what was never audited is due at once.

    So is what was begun or finished in the future: the clock that said so was ahead.
    """
    if mark is None:
        return datetime.min.replace(tzinfo=UTC), plan(conn, compiled, None)[0]
    if mark.finished_at is not None:
        # A round that took longer than the period does not push itself before the others'.
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
        # Somebody else is at it, who took this worker for lost.
        return None
    suspects = audit(conn, compiled, ranges=(ranges,)).suspects
    if suspects:
        # Compared with a damaged stream it would be made wrong.
        for stream in streams_of(conn, build):
            run.one(stream)
        run.heal(build, suspects, {"depth": "deep"})
    if advance(conn, mark, ranges) is not None and ranges[1] is None:
        _close(conn, build, by)
    return Step(build.projection, ranges[1] is None, run.result)


def _close(conn: psycopg.Connection, build: Build, by: str) -> None:
    """Closes what an interrupted audit has left open before this round began, which has looked at everything since."""
    mark = find_mark(conn, build.build_id, rolling=True)
    if mark is not None and incidents.find(
        conn,
        "i.kind = 'drift' AND i.subject = %s AND i.resolved_at IS NULL"
        " AND (i.detected_at < %s OR i.detected_at > clock_timestamp())",
        build.projection,
        mark.began_at,
    ):
        incidents.resolve(conn, "drift", build.projection, by=by, outcome={"found": "recomputed, and equal"})
