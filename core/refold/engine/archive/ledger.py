"""The cold ledger from the archive: buckets that are damaged, or all of them, made again from the ids in the files."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import psycopg

from refold.engine.archive.sources import PORTION, Sources, purged
from refold.engine.archive.thaw import thaw
from refold.model.erasure import TOKEN
from refold.postgres.failpoints import failpoint
from refold.store import archives
from refold.store.log import cold_ledger
from refold.store.log.cold_ledger import ColdLook
from refold.store.log.damage import leave_cold
from refold.store.log.guards import require_owner
from refold.store.log.seal import move


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was made again, or would be.

    Args:
        before: what was found.
        buckets: number of buckets that were made again.
        after: what was found then.
    """

    before: ColdLook
    buckets: int = 0
    after: ColdLook | None = None


_FOUND = """
    INSERT INTO pg_temp.cold_found (bucket, id, digest)
    SELECT * FROM (
        SELECT refold.cold_bucket(n.event_id, s.cold_buckets) AS bucket, refold.cold_id(n.event_id) AS id, n.digest
        FROM ({ids}) AS n CROSS JOIN refold.settings AS s
    ) AS h
    WHERE %(buckets)s::integer[] IS NULL OR h.bucket = ANY (%(buckets)s::integer[])
"""
# What refold.add_cold_ids takes of the ledger.
_OF_EVENTS = """
    SELECT e.event_id, CASE WHEN starts_with(e.user_id, '{erased}') THEN 0
        ELSE refold.cold_digest(refold.digest(e.user_id, e.action, e.ts, e.metadata, e.version)) END AS digest
    FROM {events} AS e
    UNION ALL
    SELECT DISTINCT substring(e.event_id FROM '^capture:[^:]*:[^:]*:insert:'), 0 FROM {events} AS e
    WHERE e.event_id ~ '^capture:[^:]*:[^:]*:insert:'
"""
_OF_LOST = """
    SELECT l.event_id, 1 AS digest FROM refold.lost_events AS l
    WHERE NOT EXISTS (SELECT FROM refold.event_ids AS k WHERE k.event_id = l.event_id)
"""
# Of what stands in the buckets only the ids of erased events are kept, which the archive may not have.
_PUT = """
    INSERT INTO refold.cold_ids AS c (bucket, ids, digests, checksum)
    SELECT n.bucket, n.ids, n.digests, refold.cold_checksum(n.ids, n.digests)
    FROM (
        SELECT b.bucket, array_agg(b.id ORDER BY b.id) AS ids, array_agg(b.digest ORDER BY b.id) AS digests
        FROM (
            SELECT DISTINCT ON (e.bucket, e.id) e.bucket, e.id, e.digest
            FROM (
                SELECT f.bucket, f.id, f.digest FROM pg_temp.cold_found AS f
                UNION ALL
                SELECT o.bucket, x.id, x.digest
                FROM refold.cold_ids AS o CROSS JOIN LATERAL unnest(o.ids, o.digests) AS x (id, digest)
                WHERE x.digest = 0 AND x.id IS NOT NULL
                  AND (%(buckets)s::integer[] IS NULL OR o.bucket = ANY (%(buckets)s::integer[]))
            ) AS e
            ORDER BY e.bucket, e.id, e.digest <> 0
        ) AS b
        GROUP BY b.bucket
    ) AS n
    ORDER BY n.bucket
    ON CONFLICT (bucket) DO UPDATE
        SET ids = excluded.ids, digests = excluded.digests, checksum = excluded.checksum
"""


def restore(
    conn: psycopg.Connection,
    *,
    by: str,
    dry_run: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Rebuilt:
    """Make the damaged buckets of the cold ledger again from the archive; nothing happens to those that are intact.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
        by: name of the command, for the incident.
        dry_run: look only.
        progress: called with the number of files that were read, and of all.

    Raises:
        Unreadable: the archive does not have the events as they were proved.
        DatabaseError: the login may not act as the owner.
    """
    before = found = cold_ledger.look(conn)
    if dry_run or before.intact:
        return Rebuilt(before)
    require_owner(conn)
    made = 0
    if before.damaged:
        made += rebuild(conn, list(before.damaged), progress)
        found = cold_ledger.look(conn)
    if not found.intact:
        # Which of them lack ids, or are gone themselves, only all of them together can tell.
        made = rebuild(conn, None, progress)
    with conn.transaction():
        after = cold_ledger.look(conn)
        leave_cold(conn, after, by=by, whole=True)
    return Rebuilt(before, made, after)


def rehash(conn: psycopg.Connection) -> None:
    """Compute the checksums of purged events with this server's hash functions.

    That the events are those that were proved, the files' SHA-256 tells.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.

    Raises:
        Unreadable: the archive does not have the events as they were proved.
    """
    with closing(Sources()) as sources:
        for archive in purged(conn):
            with sources.file(conn, archive) as file:
                thawed = thaw(conn, file, archive, lambda: None)
            with conn.transaction():
                kept = archives.slices_of(conn, archive)
                archives.restate(conn, archive, thawed.slices)
                conn.execute("SET LOCAL ROLE refold_owner")
                move(conn, kept, thawed.slices)
                conn.execute("SET LOCAL ROLE refold_worker")


def rebuild(
    conn: psycopg.Connection,
    buckets: list[int] | None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Make some buckets again, in one transaction after all files were read; return how many.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
        buckets: their numbers; None: all.
        progress: called with the number of files that were read, and of all.
    """
    sources = Sources()
    given = {"buckets": buckets}
    conn.execute("CREATE TEMPORARY TABLE cold_found (bucket integer, id bigint, digest integer)")
    try:
        files = [one for one in purged(conn) if _copied(conn, one.lower_position)]
        for number, archive in enumerate(files):
            at = archive.lower_position
            while at < archive.upper_position:
                with conn.transaction(), sources.thawing(conn, at, archive.upper_position, most=PORTION) as source:
                    events = source.table
                    conn.execute(_FOUND.format(ids=_OF_EVENTS.format(events=events, erased=TOKEN)).encode(), given)
                    at = source.upper
            progress(number + 1, len(files))
        with conn.transaction():
            conn.execute(_FOUND.format(ids=_OF_LOST).encode(), given)
        failpoint("chilled")
        with conn.transaction():
            conn.execute("GRANT SELECT ON pg_temp.cold_found TO refold_owner")
            conn.execute("SET LOCAL ROLE refold_owner")
            conn.execute("LOCK TABLE refold.cold_ids IN SHARE ROW EXCLUSIVE MODE")
            made = conn.execute(_PUT.encode(), given).rowcount
            conn.execute("SET LOCAL ROLE refold_worker")
    finally:
        sources.close()
        if not conn.closed:
            conn.execute("DROP TABLE IF EXISTS pg_temp.cold_found")
    return made


def _copied(conn: psycopg.Connection, position: int) -> bool:
    """Return whether the ids of a purged segment have been copied into the cold ledger."""
    return bool(
        conn.execute(
            "SELECT FROM refold.cold_ranges WHERE lower_position = %s AND copied_at IS NOT NULL", (position,)
        ).rowcount
    )
