"""Finding what there is to do: one look at all cursors, without a lock."""

from __future__ import annotations

import psycopg

from refold.builds.build import Build, find
from refold.worker.catch_up import by_depth, has_work


def waiting(conn: psycopg.Connection) -> list[Build]:
    """The builds that have something to apply right now, upstream first.

    Args:
        conn: acts as refold_worker, in autocommit mode.
    """
    kept = find(conn, "b.state IN ('building', 'live')")
    cursors = {build.build_id: build.cursor for build in kept}
    on_log = [build.build_id for build in kept if build.upstream_id is None and build.loaded]
    unread = {
        int(build_id)
        for (build_id,) in conn.execute(
            "SELECT build_id FROM refold.builds WHERE build_id = ANY (%s::text::bigint[]) AND refold.has_unread(done)",
            ("{" + ",".join(map(str, on_log)) + "}",),
        ).fetchall()
    }
    loaded = {build.build_id for build in kept if build.loaded}
    found = [
        build
        for build in kept
        if (build.upstream_id is None or build.upstream_id in loaded)
        and has_work(
            build,
            None if build.upstream_id is None else cursors[build.upstream_id],
            build.build_id in unread,
        )
    ]
    return by_depth(conn, found) if len(found) > 1 else found
