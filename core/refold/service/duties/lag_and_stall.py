"""The duty that detects builds with too much lag, and stalled builds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

import psycopg
from psycopg.rows import class_row

from refold.service.duties.findings import DutyFinding, record
from refold.store.builds.compiled import Compiler
from refold.store.incidents import Incident, become, open_incidents
from refold.store.schema.settings import Settings, read_settings

NAME = "lag and stall"
Kind = Literal["lag", "stalled"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ALL = "all metrics"
"""Subject of an incident that affects all metrics."""
WHILE_WRITING = 10
"""Factor of the stall limit for a build that a session writes to: a step of a first load takes minutes."""


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """The progress of a build at one moment.

    Args:
        at: time of this reading.
        oldest_id: event that has waited longest; None if no event waits.
        oldest_at: since when it has waited.
        moved_at: when the cursor last advanced, or the build was created.
        error: why a worker could not apply its next page.
        writers: process ids of sessions that write to its table.
        created_at: when the build was created.
    """

    build_id: int
    projection: str
    table_name: str
    state: str
    upstream_id: int | None
    loaded: bool
    at: datetime
    oldest_id: str | None
    oldest_at: datetime | None
    moved_at: datetime
    error: str | None
    writers: list[int]
    created_at: datetime | None = None

    @property
    def waiting_since(self) -> datetime | None:
        """Return since when the oldest event has waited; None if no event waits.

        What a clock that was ahead has written down is no time at all: then since it moved last, or was made.
        Too long ago is told for a moment; too short would be silence until the clock is caught up with.
        """
        if self.oldest_at is None or self.oldest_at <= self.at:
            return self.oldest_at
        return self.still_since

    @property
    def still_since(self) -> datetime:
        """Return since when the cursor has not advanced, as far as known."""
        return self.moved_at if self.moved_at <= self.at else min(self.created_at or self.at, self.at)


_LOOK = """
SELECT b.build_id, b.projection, b.table_name, b.state, b.upstream_id, b.loaded, clock_timestamp() AS at,
       o.event_id AS oldest_id, o.recorded_at AS oldest_at, coalesce(b.moved_at, b.created_at) AS moved_at, b.error,
       ARRAY(SELECT DISTINCT l.pid FROM pg_locks AS l
             WHERE l.locktype = 'relation' AND l.granted AND l.mode = 'RowExclusiveLock' AND l.pid IS NOT NULL
               AND l.relation = to_regclass(format('refold_builds.%I', b.table_name))::oid
               AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
             ORDER BY 1) AS writers, b.created_at
FROM refold.builds_now AS b
LEFT JOIN LATERAL refold.oldest_unread(b.done, b.target, b.progress_txid, b.progress_position) AS o ON true
WHERE b.state IN ('building', 'live')
ORDER BY b.build_id
"""


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause that delays one or more builds.

    Args:
        kind: `lag` or `stalled`.
        finding: the finding to report.
        tables: tables of the affected builds.
    """

    kind: Kind
    finding: DutyFinding
    tables: Sequence[str]


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Open and resolve the incidents `lag` and `stalled`: one for each cause, however many builds it affects."""
    with conn.cursor(row_factory=class_row(BuildProgress)) as cursor:
        builds_now = cursor.execute(_LOOK).fetchall()
    with conn.transaction():
        before = open_incidents(conn, "lag", "stalled")
        found = causes(builds_now, read_settings(conn), before)
        for cause, incident in successions(found, before):
            become(conn, incident.incident_id, cause.kind, cause.finding.subject)
        for kind in KINDS:
            record(conn, kind, NAME, [cause.finding for cause in found if cause.kind == kind])


def causes(builds: Sequence[BuildProgress], allowed: Settings, before: Sequence[Incident] = ()) -> list[Cause]:
    """Return the causes that delay builds, each once. Pure.

    A build that waits for its stream has that one's cause. Where no live build is on time, though there are several,
    nobody is at work, or too few: that is one cause, and stays one until the last of them is on time. What stood still
    has not only a lag afterwards: it is the same incident until it has caught up.

    Args:
        builds: all that are kept.
        allowed: the limits.
        before: the incidents of these kinds that are open.
    """
    stood = {table for one in before if one.kind == "stalled" for table in _tables(one)}
    together = {table for one in before if one.subject == ALL for table in _tables(one)}
    wrong: dict[int, Kind] = {
        build.build_id: "stalled" if stands or build.table_name in stood else "lag"
        for build in builds
        if (stands := _stands_still(build, allowed)) or _late(build, allowed)
    }
    # What fails has a cause of its own, wherever it stands.
    roots = [
        build
        for build in builds
        if build.build_id in wrong and (build.error is not None or build.upstream_id not in wrong)
    ]
    below = {root.build_id: _below(root, builds, wrong) for root in roots}
    alike = [root for root in roots if root.error is None]
    if any(build.state == "live" and build.build_id not in wrong for build in builds):
        alike = [root for root in alike if root.table_name in together]
    elif len(alike) < 2:
        alike = []
    found = [
        Cause(wrong[root.build_id], _finding(root, below[root.build_id], wrong, allowed), _names(root, below))
        for root in roots
        if root not in alike
    ]
    if alike:
        found.append(_common(alike, below, wrong, allowed))
    return found


def successions(found: Sequence[Cause], before: Sequence[Incident]) -> list[tuple[Cause, Incident]]:
    """Match open incidents to causes under another name, such as a lag that became a stall. Pure."""
    known = {(one.kind, one.subject) for one in before}
    going_on = {(cause.kind, cause.finding.subject) for cause in found}
    free = [one for one in before if (one.kind, one.subject) not in going_on]
    followed = []
    for cause in found:
        if (cause.kind, cause.finding.subject) in known:
            continue
        mine = [one for one in free if set(_tables(one)) & set(cause.tables)]
        if mine:
            followed.append((cause, mine[0]))
            free.remove(mine[0])
    return followed


def _late(build: BuildProgress, allowed: Settings) -> bool:
    since = build.waiting_since
    return build.state == "live" and since is not None and _seconds(build.at, since) > allowed.lag_limit


def _stands_still(build: BuildProgress, allowed: Settings) -> bool:
    since = _idle_since(build)
    return build.error is not None or (since is not None and _seconds(build.at, since) > _stall_limit(build, allowed))


def _below(root: BuildProgress, builds: Sequence[BuildProgress], wrong: Mapping[int, Kind]) -> list[BuildProgress]:
    """Return the delayed readers of a build, at any depth."""
    below: list[BuildProgress] = []
    queue = [root]
    for build in queue:
        for reader in builds:
            if reader.upstream_id == build.build_id and reader.build_id in wrong and reader.error is None:
                below.append(reader)
                queue.append(reader)
    return below


def _names(root: BuildProgress, below: Mapping[int, Sequence[BuildProgress]]) -> list[str]:
    return [build.table_name for build in (root, *below[root.build_id])]


def _finding(
    root: BuildProgress, below: Sequence[BuildProgress], wrong: Mapping[int, Kind], allowed: Settings
) -> DutyFinding:
    """Return the finding for one build and the readers that wait for it."""
    evidence: dict[str, Any] = {"projection": root.projection, "oldest_event": root.oldest_id}
    if below:
        evidence["holds_up"] = [build.table_name for build in below]
    if wrong[root.build_id] == "lag":
        since = root.waiting_since or root.at
        recorded = root.oldest_at or since
        evidence |= {
            "seconds": round(_seconds(root.at, since), 3),
            "limit": allowed.lag_limit,
            "recorded_at": recorded.isoformat(),
        }
        return DutyFinding(root.table_name, since, evidence)
    evidence |= {
        "state": root.state,
        "loaded": root.loaded,
        "moved_at": root.moved_at.isoformat(),
        "error": root.error,
        "written_by": root.writers,
    }
    return DutyFinding(root.table_name, _idle_since(root) or root.moved_at, evidence)


def _common(
    roots: Sequence[BuildProgress],
    below: Mapping[int, Sequence[BuildProgress]],
    wrong: Mapping[int, Kind],
    allowed: Settings,
) -> Cause:
    """Return the cause that affects all metrics."""
    tables = [name for root in roots for name in _names(root, below)]
    first = min(roots, key=lambda root: root.waiting_since or root.still_since)
    since = first.waiting_since or first.still_since
    evidence = {
        "builds": tables,
        "oldest_event": first.oldest_id,
        "seconds": round(_seconds(first.at, since), 3),
        "moved_at": max(root.moved_at for root in roots).isoformat(),
        "because": "every live metric is late: no worker runs, the workers are frozen, or there are too few",
    }
    kind: Kind = "stalled" if any(wrong[root.build_id] == "stalled" for root in roots) else "lag"
    return Cause(kind, DutyFinding(ALL, since, evidence), tables)


def _tables(one: Incident) -> list[str]:
    """Return the tables of the builds that an incident affects."""
    return [*one.evidence.get("builds", [one.subject]), *one.evidence.get("holds_up", [])]


def _idle_since(build: BuildProgress) -> datetime | None:
    """Return since when the build has had work without advancing; None without work."""
    if not build.loaded:
        return build.still_since
    waiting = build.waiting_since
    # Before the event came there was nothing to do.
    return None if waiting is None else max(build.still_since, waiting)


def _stall_limit(build: BuildProgress, allowed: Settings) -> int:
    return allowed.stalled_after * (WHILE_WRITING if build.writers else 1)


def _seconds(at: datetime, since: datetime) -> float:
    return (at - since).total_seconds()
