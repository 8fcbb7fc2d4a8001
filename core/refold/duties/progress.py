"""Builds that fall behind their limit, and builds that stand still."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row

from refold.builds.upkeeper import Upkeepers
from refold.duties.findings import Finding, record
from refold.duties.limits import Limits, limits

NAME = "progress"
WHILE_WRITING = 10
"""A build that somebody is writing to may take so many times as long: a step of a first load takes minutes."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A kept build at one moment.

    Args:
        at: the moment.
        oldest_id: the event that has waited longest for it; None when nothing waits.
        oldest_at: since when.
        moved_at: when its cursor last moved, or it was made.
        error: why a worker could not apply its next page.
        writers: the process ids of sessions that are writing to its table.
        created_at: when it was made.
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
        """Since when the oldest event has waited; None when nothing waits.

        What a clock that was ahead has written down is no time at all: then since it moved last, or was made.
        Too long ago is told for a moment; too short would be silence until the clock is caught up with.
        """
        if self.oldest_at is None or self.oldest_at <= self.at:
            return self.oldest_at
        return self.still_since

    @property
    def still_since(self) -> datetime:
        """Since when it has not moved, as far as that is known."""
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


def run(conn: psycopg.Connection, upkeepers: Upkeepers) -> None:
    """Opens and closes the incidents `lag` and `stalled`."""
    with conn.cursor(row_factory=class_row(Standing)) as cursor:
        standing = cursor.execute(_LOOK).fetchall()
    allowed = limits(conn)
    record(conn, "lag", NAME, lagging(standing, allowed))
    record(conn, "stalled", NAME, stalled(standing, allowed))


def lagging(builds: Sequence[Standing], allowed: Limits) -> list[Finding]:
    """Live builds whose oldest unread event has waited for longer than the limit. Pure."""
    return [
        Finding(
            build.table_name,
            since,
            {
                "projection": build.projection,
                "seconds": round(_seconds(build.at, since), 3),
                "limit": allowed.lag_limit,
                "oldest_event": build.oldest_id,
                "recorded_at": (build.oldest_at or since).isoformat(),
            },
        )
        for build in builds
        if build.state == "live" and (since := build.waiting_since) and _seconds(build.at, since) > allowed.lag_limit
    ]


def stalled(builds: Sequence[Standing], allowed: Limits) -> list[Finding]:
    """Builds that fail, and builds with work that nobody has moved for too long. Pure."""
    by_id = {build.build_id: build for build in builds}
    found = []
    for build in builds:
        since = _idle_since(build)
        if build.error is None and (since is None or _seconds(build.at, since) <= _patience(build, allowed)):
            continue
        evidence = {
            "projection": build.projection,
            "state": build.state,
            "loaded": build.loaded,
            "moved_at": build.moved_at.isoformat(),
            "oldest_event": build.oldest_id,
            "error": build.error,
            "written_by": build.writers,
            "waits_for": _blocked_by(build, by_id, allowed),
        }
        found.append(Finding(build.table_name, since or build.moved_at, evidence))
    return found


def _idle_since(build: Standing) -> datetime | None:
    """From when on it had work and did not move; None while it has none."""
    if not build.loaded:
        return build.still_since
    waiting = build.waiting_since
    # Before the event came there was nothing to do.
    return None if waiting is None else max(build.still_since, waiting)


def _patience(build: Standing, allowed: Limits) -> int:
    return allowed.stalled_after * (WHILE_WRITING if build.writers else 1)


def _blocked_by(build: Standing, by_id: Mapping[int, Standing], allowed: Limits) -> str | None:
    """The table of the upstream, where that is what it waits for."""
    upstream = None if build.upstream_id is None else by_id.get(build.upstream_id)
    return upstream.table_name if upstream is not None and stalled([upstream], allowed) else None


def _seconds(at: datetime, since: datetime) -> float:
    return (at - since).total_seconds()
