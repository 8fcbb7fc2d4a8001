"""The search for builds with work: one query over all cursors, without a lock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

from refold.engine.apply.step import has_work
from refold.store.builds.build import COLUMNS, Build


@dataclass(frozen=True, slots=True)
class _Kept(Build):
    """A build that workers keep up to date.

    Args:
        unread: whether the log has events beyond its cursor; false for a build that does not read the log.
    """

    unread: bool


# The newest event is looked for once, for all of them.
_LOOK = f"""
WITH newest AS MATERIALIZED (SELECT refold.last_txid() AS txid)
SELECT {COLUMNS},
       CASE WHEN b.loaded AND b.upstream_id IS NULL THEN refold.has_unread(b.done, newest.txid) ELSE false END AS unread
FROM refold.builds_now AS b
CROSS JOIN newest
WHERE b.state IN ('building', 'live')
"""


def builds_with_work(conn: psycopg.Connection) -> list[Build]:
    """Return the builds that have events to apply now, upstream first.

    Args:
        conn: acts as refold_worker, in autocommit mode.
    """
    with conn.cursor(row_factory=class_row(_Kept)) as cursor:
        kept = {build.build_id: build for build in cursor.execute(_LOOK.encode()).fetchall()}
    found: list[Build] = [build for build in kept.values() if _waits(build, kept)]
    return sorted(found, key=lambda build: (_depth(build, kept), build.build_id))


def _waits(build: _Kept, kept: Mapping[int, _Kept]) -> bool:
    if build.upstream_id is None:
        return has_work(build, None, build.unread)
    upstream = kept.get(build.upstream_id)
    return upstream is not None and upstream.loaded and has_work(build, upstream.cursor, False)


def _depth(build: Build, kept: Mapping[int, _Kept]) -> int:
    """Return the distance of a build from the log."""
    upstream = None if build.upstream_id is None else kept.get(build.upstream_id)
    return 0 if upstream is None else 1 + _depth(upstream, kept)
