"""The state of the archive, as the database knows it; the store is not asked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row

from refold.postgres.rows import one_row


@dataclass(frozen=True, slots=True)
class ArchiveStatus:
    """The archive at one moment.

    Args:
        location: where it is.
        claimed: whether this database has claimed it, and no recovery has taken that back.
        segments: segments of the log.
        sealed: those that are sealed as a whole.
        verified: those with a file that is proved.
        written: those whose file waits: to be read back, or for the file beside it.
        waiting: sealed segments without a file.
        purged: segments that have left the log.
        gone: files that the store does not have as they were written, of segments without another one.
        events: events in files that are proved.
        bytes: size of these files.
        upto: first position behind the verified segments, without a gap from the log's begin.
        last_verified_at: when a file was verified last.
        failures: attempts that failed in succession.
        failing_since: when the first of them failed.
        retry_at: the next attempt.
        error: what the store said last; an observer does not see it.
    """

    location: str
    claimed: bool
    segments: int
    sealed: int
    verified: int
    written: int
    waiting: int
    purged: int
    gone: int
    events: int
    bytes: int
    upto: int
    last_verified_at: datetime | None
    failures: int
    failing_since: datetime | None
    retry_at: datetime | None
    error: str | None


_STATUS = """
WITH edge AS (
    SELECT coalesce((SELECT s.slice FROM refold.sealed_slices AS s WHERE s.sealed_at IS NULL ORDER BY s.slice LIMIT 1),
                    (SELECT max(s.slice) + 1 FROM refold.sealed_slices AS s), 0) AS slice
), segments AS (
    SELECT g.lower_position, refold.position_slice(g.upper_position - 1) < edge.slice AS sealed, a.state, a.proved_at
    FROM refold.segments AS g CROSS JOIN edge
    LEFT JOIN refold.archives AS a
        ON a.lower_position = g.lower_position AND a.state IN ('begun', 'written', 'verified')
), files AS (
    SELECT coalesce(sum(a.events) FILTER (WHERE a.proved_at IS NOT NULL), 0)::bigint AS events,
           coalesce(sum(a.bytes) FILTER (WHERE a.proved_at IS NOT NULL), 0)::bigint AS bytes,
           max(a.verified_at) AS last_verified_at,
           count(*) FILTER (WHERE a.state = 'verified') AS verified,
           count(*) FILTER (WHERE a.state IN ('begun', 'written')) AS written,
           count(*) FILTER (WHERE a.state = 'purged') AS purged
    FROM refold.archives AS a WHERE a.state IN ('begun', 'written', 'verified', 'purged')
)
SELECT s.archive AS location,
       c.location IS NOT NULL AND c.location = s.archive AND {owns} AS claimed,
       (SELECT count(*) FROM segments) AS segments,
       (SELECT count(*) FROM segments WHERE sealed) AS sealed,
       f.verified, f.written,
       (SELECT count(*) FROM segments WHERE sealed AND state IS NULL) AS waiting, f.purged,
       (SELECT count(DISTINCT a.lower_position) FROM refold.archives AS a
        WHERE a.state = 'gone' AND NOT EXISTS (
            SELECT FROM refold.archives AS o
            WHERE o.lower_position = a.lower_position
              AND o.state IN ('begun', 'written', 'verified', 'purged'))) AS gone,
       f.events, f.bytes,
       coalesce((SELECT min(lower_position) FROM segments WHERE state IS DISTINCT FROM 'verified'), refold.log_end())
           AS upto,
       f.last_verified_at, coalesce(c.failures, 0) AS failures, c.failing_since, c.retry_at, {error} AS error
FROM refold.settings AS s CROSS JOIN files AS f LEFT JOIN refold.archive_store AS c ON true
WHERE s.archive IS NOT NULL
"""


def archive_status(conn: psycopg.Connection) -> ArchiveStatus | None:
    """Return the state of the archive; None if there is none.

    Args:
        conn: acts as one of `READERS`.
    """
    if one_row(conn, "SELECT archive FROM refold.settings")[0] is None:
        return None
    row = conn.execute("SELECT has_column_privilege('refold.archive_store', 'error', 'SELECT')").fetchone()
    sees = row == (True,)
    query = _STATUS.format(error="c.error" if sees else "NULL::text", owns="c.turns <> '{}'" if sees else "true")
    with conn.cursor(row_factory=class_row(ArchiveStatus)) as cursor:
        return cursor.execute(query.encode()).fetchone()
