"""A round of the duty `canary`: look at each candidate, apply the rules, and do what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import psycopg

from refold.engine.canary.canary import abort_by_rule, supersede, tidy
from refold.engine.deployment.promote import go_live_by
from refold.engine.diff.diff import differing
from refold.engine.diff.result import Diff
from refold.errors import BuildError, RefoldError
from refold.model.canary.expect import Difference, Expectation, parse
from refold.model.canary.rules import Seen, verdict, within_window
from refold.model.quantiles import quantile
from refold.postgres.rows import one_row
from refold.store import canaries, incidents
from refold.store.builds.build import Build, by_ids, live
from refold.store.builds.compiled import Compiler
from refold.store.canaries import Canary, CanaryBuild

NAME = "canary"
LOCK_WAIT_S = 1.0
"""Seconds for which the duty waits for sessions that read a view, before its next run tries again."""
SAMPLES = 5
"""Rows of each kind that a verdict holds."""
_FRESH = """
SELECT bucket, sum(events)::bigint FROM refold.latencies
WHERE build_id = %s AND stage = 'fresh' AND minute >= now() - interval '10 minutes'
GROUP BY bucket
"""


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Check every open canary, put right the views of those that have ended, and resolve incidents that are over.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        compiler: makes the SQL of builds.
    """
    supersede(conn)
    failed: BuildError | None = None
    for canary in canaries.open_canaries(conn):
        try:
            check(conn, compiler, canary)
        except BuildError as error:
            # Others must not wait for it.
            failed = failed or error
    _resolve(conn)
    tidy(conn, compiler, seconds=LOCK_WAIT_S)
    if failed is not None:
        raise failed


def check(conn: psycopg.Connection, compiler: Compiler, canary: Canary) -> None:
    """Check one canary, and do what the rules say: abort, take a step, promote, or wait."""
    expected = parse(canary.expect)
    builds = {build.build_id: build for build in by_ids(conn, [one.build_id for one in canary.builds])}
    seen: list[Seen] = []
    verdicts: dict[str, Any] = {}
    for one in canary.builds:
        found, told = _look(conn, compiler, one, builds[one.build_id], expected)
        seen.append(found)
        verdicts[one.projection] = told
    (soaked,) = one_row(conn, "SELECT clock_timestamp() - %s >= %s", (canary.since, canary.soak))
    judged = verdict(
        seen,
        held=canary.because or "held by a person" if canary.state == "held" else None,
        limited=canary.at_most if canary.at_most < _next(canary) else None,
        soaked=bool(soaked),
        last=canary.step == len(canary.steps),
        judged=expected is not None,
    )
    marks = {one.metric: [dict(mark) for mark in one.marks] for one in seen}
    canaries.check(conn, canary, judged.because, verdicts, marks)
    if judged.next == "abort":
        abort_by_rule(conn, canary, judged.because or "", {"differences": verdicts})
    elif judged.next == "step":
        canaries.take_step(conn, canary)
    elif judged.next == "promote":
        go_live_by(conn, compiler, canary.names, lambda progress: None)


def _next(canary: Canary) -> int:
    """Return the percentage of readers who see the candidates once this step is over: all, after the last one."""
    return [*canary.steps, 100][canary.step]


def _look(
    conn: psycopg.Connection,
    compiler: Compiler,
    one: CanaryBuild,
    candidate: Build,
    expected: Expectation | None,
) -> tuple[Seen, dict[str, Any]]:
    """Return what is seen of a candidate, and the same with rows, to be kept."""
    found = Seen(
        one.projection,
        impure=bool(incidents.open_incidents(conn, "impure_transform", subject=candidate.table_name)),
    )
    current = live(conn, one.projection)
    if current is None:
        return _letters(conn, one, found), {"because": "no build of it is live: there is nothing to compare"}
    (at,) = one_row(conn, "SELECT extract(epoch FROM clock_timestamp())::float8")
    found = replace(
        found,
        fresh_s=_fresh(conn, candidate),
        live_fresh_s=_fresh(conn, current),
        marks=within_window(one.marks, _mark(at, candidate, current)),
    )
    try:
        with differing(conn, compiler, one.projection, candidate.number) as pair:
            difference = pair.diff(SAMPLES)
    except RefoldError as error:
        if isinstance(error, BuildError):
            return _letters(conn, one, replace(found, held=str(error))), {"because": str(error)}
        raise
    violation = None if expected is None else expected.violation(facts(difference))
    told = difference.as_dict() | ({} if violation is None else {"violation": violation})
    # After the comparison, so that events of which it saw the loss are counted.
    found = _letters(conn, one, replace(found, violation=violation))
    return found if found.left_out > current.dead_letters else replace(found, left_out=0), told


def _letters(conn: psycopg.Connection, one: CanaryBuild, found: Seen) -> Seen:
    """Return what is seen of a candidate, with the events that it leaves out."""
    (candidate,) = by_ids(conn, [one.build_id])
    return replace(found, letters=candidate.dead_letters - one.dead_letters, left_out=candidate.dead_letters)


def facts(found: Diff) -> Difference:
    """Return what an expectation needs to know of a difference."""
    shape, rows, slices = found.shape, found.rows, found.slices
    columns = {name for name, _ in (*shape.added, *shape.removed)}
    columns |= {one.name for one in shape.retyped} | {one.name for one in found.columns}
    return Difference(
        found.same,
        shape.comparable,
        frozenset(columns),
        rows.identical + slices.rows + rows.modified,
        rows.modified,
        rows.added,
        rows.removed,
        slices.first_number if slices.by_day else None,
    )


def _mark(at: float, candidate: Build, current: Build) -> Mapping[str, Any]:
    return {
        "at": at,
        "live": current.build_id,
        "candidate_events": candidate.events_applied,
        "candidate_ms": candidate.apply_ms,
        "live_events": current.events_applied,
        "live_ms": current.apply_ms,
    }


def _fresh(conn: psycopg.Connection, build: Build) -> float | None:
    counts = {int(bucket): int(events) for bucket, events in conn.execute(_FRESH, (build.build_id,)).fetchall()}
    return quantile(counts, 0.99)


def _resolve(conn: psycopg.Connection) -> None:
    """Resolve the incidents of metrics that were built again since, or are gone."""
    for incident in incidents.open_incidents(conn, "canary_aborted"):
        row = conn.execute(
            "SELECT bool_or(created_at > %s), bool_or(state = 'live') FROM refold.builds WHERE projection = %s",
            (incident.detected_at, incident.subject),
        ).fetchone()
        again, kept = (False, False) if row is None else row
        if again or not kept:
            because = "it was built again" if again else "the metric is not live any more"
            incidents.resolve(conn, "canary_aborted", incident.subject, by=NAME, outcome={"because": because})
