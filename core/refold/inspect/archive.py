"""The state of the archive, as the database knows it; the store is not asked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row

from refold.model.stream.slices import POSITION_BITS
from refold.postgres.rows import one_row
from refold.prose import counted


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

    @property
    def words(self) -> str:
        """Return which sealed segments it has, in words. `sealed` does not count those that have left the log."""
        if not self.sealed:
            return (
                f"all {counted(self.purged, 'sealed segment')} archived and purged"
                if self.purged
                else "no segment is sealed yet"
            )
        of = f"{self.verified:,} of {counted(self.sealed, 'sealed segment')} in the log verified"
        return f"{of}, {counted(self.purged, 'segment')} archived and purged" if self.purged else of


@dataclass(frozen=True, slots=True)
class ArchiveFigures:
    """What monitoring asks of the log's end, all the time: it takes a few pages, however many segments there are.

    Args:
        first: first position of the log that was not purged.
        sealed: first position that may still be written.
        after_s: so long after it was sealed a segment is archived, seconds; None without an archive, as what follows.
        waiting: sealed segments that are not archived, at most `WAITING`.
        oldest_s: how long ago the first of them was sealed, seconds; 0 without any.
        archived_at: when the last segment was archived, seconds since 1970; 0: never.
        failures: attempts that failed in succession.
    """

    first: int
    sealed: int
    after_s: int | None
    waiting: int | None
    oldest_s: float | None
    archived_at: float | None
    failures: int | None


WAITING = 100
"""Most segments that are looked at, from the first one that the totals do not count as archived."""

_EDGE = """
    SELECT coalesce(
        -- In the order of the index by time, which has these slices together.
        (SELECT s.slice FROM refold.sealed_slices AS s WHERE s.sealed_at IS NULL ORDER BY s.sealed_at, s.slice LIMIT 1),
        (SELECT max(s.slice) + 1 FROM refold.sealed_slices AS s), 0) AS slice
"""
"""The first slice that is not sealed."""

# The names of segments hold their first positions, so that the catalog's index of names leads to them.
_FIGURES = f"""
WITH edge AS ({_EDGE}),
mark AS MATERIALIZED (
    SELECT coalesce((SELECT m.upto FROM refold.total_marks AS m WHERE m.what = 'archived'), 0) AS upto
),
segments AS MATERIALIZED (
    SELECT lower_position, upper_position FROM (
        SELECT (b.found)[1]::bigint AS lower_position, (b.found)[2]::bigint AS upper_position
        FROM (
            SELECT c.oid, c.relpartbound FROM pg_class AS c
            WHERE c.relname >= 'events_' || lpad((SELECT upto FROM mark)::text, 15, '0')
              AND c.relname < 'events_:' AND c.relnamespace = 'refold'::regnamespace AND c.relkind = 'r'
              AND c.relispartition
            ORDER BY c.relname LIMIT {WAITING}
        ) AS c
        CROSS JOIN LATERAL (SELECT regexp_match(
            pg_get_expr(c.relpartbound, c.oid), '[(]''?([0-9]+)''?[)] TO [(]''?([0-9]+)''?[)]') AS found) AS b
    ) AS g
),
archived AS MATERIALIZED (
    SELECT a.lower_position FROM refold.archives AS a
    WHERE a.lower_position >= (SELECT upto FROM mark) AND a.state = 'verified'
    ORDER BY a.lower_position LIMIT {WAITING}
),
waiting AS MATERIALIZED (
    SELECT g.lower_position, g.upper_position FROM segments AS g CROSS JOIN edge
    WHERE refold.position_slice(g.upper_position - 1) < edge.slice
      AND g.lower_position NOT IN (SELECT lower_position FROM archived)
)
SELECT refold.log_floor() AS first, edge.slice::bigint << {POSITION_BITS} AS sealed,
       CASE WHEN s.archive IS NOT NULL THEN s.archive_after END AS after_s,
       CASE WHEN s.archive IS NOT NULL THEN (SELECT count(*) FROM waiting) END AS waiting,
       CASE WHEN s.archive IS NOT NULL THEN coalesce((
           SELECT greatest(extract(epoch FROM clock_timestamp() - n.sealed_at), 0)
           FROM refold.sealed_slices AS n
           WHERE n.slice <= (SELECT refold.position_slice(min(w.upper_position) - 1) FROM waiting AS w)
           ORDER BY n.slice DESC LIMIT 1), 0)::float8 END AS oldest_s,
       CASE WHEN s.archive IS NOT NULL THEN coalesce((
           SELECT extract(epoch FROM a.proved_at) FROM refold.archives AS a WHERE a.state IN ('verified', 'purged')
           ORDER BY a.lower_position DESC, a.generation DESC LIMIT 1), 0)::float8 END AS archived_at,
       CASE WHEN s.archive IS NOT NULL THEN coalesce((SELECT c.failures FROM refold.archive_store AS c), 0) END
           AS failures
FROM refold.settings AS s CROSS JOIN edge
"""

_STATUS = f"""
WITH edge AS ({_EDGE}), segments AS (
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
       c.location IS NOT NULL AND c.location = s.archive AND {{owns}} AS claimed,
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
       f.last_verified_at, coalesce(c.failures, 0) AS failures, c.failing_since, c.retry_at, {{error}} AS error
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


def archive_figures(conn: psycopg.Connection) -> ArchiveFigures:
    """Return what monitoring asks of the archive and of the log's end.

    Args:
        conn: acts as one of `READERS`; the caller's transaction plans by index.
    """
    return one_row(conn, _FIGURES.encode(), row=class_row(ArchiveFigures))
