"""What metrics and the log leave out, grouped by cause: dead letters, and rejected records."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row


@dataclass(frozen=True, slots=True)
class LetterGroup:
    """Waiting dead letters with one cause.

    Args:
        metric: name of the projection.
        build_id: its build.
        live: whether this build is live: only then the metric misses the events.
        sqlstate: SQLSTATE of the error; None: a transform raised it.
        error: message of the error; None for an observer.
        cause: SHA-256 of the message in hexadecimal, by which a form names it; None for an observer.
        number: how many letters wait.
        first: number of the oldest of them.
        since: when the first of them failed, UTC.
        latest: when one of them failed last, UTC.
        attempts: most attempts of one of them.
    """

    metric: str
    build_id: int
    live: bool
    sqlstate: str | None
    error: str | None
    cause: str | None
    number: int
    first: int
    since: datetime
    latest: datetime
    attempts: int


def letter_groups(conn: psycopg.Connection, *, evidence: bool, most: int = 200) -> list[LetterGroup]:
    """Return the waiting dead letters by cause, the largest groups first.

    Args:
        conn: may act as refold_observer; for the texts of errors, as refold_inspector.
        evidence: whether to group by the texts of errors, and return them.
        most: most groups.
    """
    error = "d.error" if evidence else "NULL::text"
    query = f"""
        SELECT b.projection AS metric, d.build_id, b.state = 'live' AS live, d.sqlstate, {error} AS error,
               encode(sha256(convert_to({error}, 'UTF8')), 'hex') AS cause, count(*) AS number,
               min(d.dead_letter_id) AS first, min(d.first_failed_at) AS since, max(d.last_failed_at) AS latest,
               max(d.attempts) AS attempts
        FROM refold.dead_letters AS d JOIN refold.builds AS b USING (build_id)
        WHERE d.state = 'waiting' AND b.state IN ('building', 'live')
        GROUP BY 1, 2, 3, 4, 5 ORDER BY number DESC, metric, since LIMIT %s
    """
    with conn.cursor(row_factory=class_row(LetterGroup)) as cursor:
        return cursor.execute(query.encode(), (most,)).fetchall()


@dataclass(frozen=True, slots=True)
class RejectedGroup:
    """Rejected records with one answer, and for an inspector with one source and reason.

    Args:
        answer: `conflict` or `invalid`.
        source: name of the file or producer; None for an observer.
        reason: the error in words; None for an observer.
        records: how many records are kept; at least, if it is `REJECTED`.
        times: how often they came.
        first_seen: when the first of them came first, UTC.
        last_seen: when one of them came last, UTC.
        raw: text of the newest of them; None for an observer.
    """

    answer: str
    source: str | None
    reason: str | None
    records: int
    times: int
    first_seen: datetime
    last_seen: datetime
    raw: str | None


REJECTED = 2_000
"""Most rejected records that are read, newest first."""


def rejected_groups(conn: psycopg.Connection, *, evidence: bool) -> list[RejectedGroup]:
    """Return the newest rejected records by answer, source and reason, the latest first.

    Args:
        conn: may act as refold_observer; for texts, as refold_inspector.
        evidence: whether to return sources, reasons and texts.
    """
    told = "source, reason" if evidence else "NULL::text AS source, NULL::text AS reason"
    raw = "(array_agg(left(r.raw, 300) ORDER BY r.rejected_id DESC))[1]" if evidence else "NULL::text"
    inner = "source, reason, raw, " if evidence else ""
    query = f"""
        SELECT answer, {told}, count(*) AS records, sum(times)::bigint AS times, min(first_seen) AS first_seen,
               max(last_seen) AS last_seen, {raw} AS raw
        FROM (SELECT {inner}rejected_id, answer, times, first_seen, last_seen FROM refold.rejected
              ORDER BY rejected_id DESC LIMIT %s) AS r
        GROUP BY 1, 2, 3 ORDER BY last_seen DESC LIMIT 200
    """
    with conn.cursor(row_factory=class_row(RejectedGroup)) as cursor:
        return cursor.execute(query.encode(), (REJECTED,)).fetchall()
