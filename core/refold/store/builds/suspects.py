"""Builds that may hold wrong rows, because they read the log while it was damaged.

While events are missing or changed, pages go on, and what is recomputed by key reads them from the log as it stands;
so do first loads. When the log is what it was again, nothing about such a row says that it is wrong: its figures are
its own. So whatever was kept while the log was damaged is proved once more, by a deep audit that begins afterwards.
"""

from __future__ import annotations

import psycopg

from refold.store.builds.build import Build, find

# An end that lies in the future was written by a clock that was ahead: no audit could begin after it.
SUSPECT = """
    b.state IN ('building', 'live') AND b.loaded AND EXISTS (
        SELECT FROM refold.incidents AS i
        WHERE i.kind = 'log_damage' AND b.created_at < i.resolved_at AND i.resolved_at <= clock_timestamp()
          AND NOT EXISTS (
              SELECT FROM refold.audits AS a
              WHERE a.build_id = b.build_id AND a.began_at > i.resolved_at AND a.finished_at IS NOT NULL)
          -- The next round of the same audit takes the place of the one that has finished; its proof stays.
          AND NOT EXISTS (
              SELECT FROM refold.proofs AS p
              WHERE p.build_id = b.build_id AND p.depth = 'deep'
                AND p.began_at > i.resolved_at AND p.began_at <= clock_timestamp()
                AND p.upstream_id IS NOT DISTINCT FROM b.upstream_id))
"""


def suspects(conn: psycopg.Connection) -> list[Build]:
    """Return the loaded builds that were updated while the log was damaged, and not fully audited since."""
    if not conn.execute("SELECT FROM refold.incidents WHERE kind = 'log_damage' LIMIT 1").rowcount:
        return []
    return find(conn, SUSPECT)
