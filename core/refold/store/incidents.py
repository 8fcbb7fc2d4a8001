"""Incidents: faults, each from its start to its resolution.

Every self-healing duty leaves its trace here, so that the time to detect and the time to recover are figures. One
incident is open for a kind and a subject at a time; a fault that is seen again adds to it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from refold.postgres.rows import one_row

log = logging.getLogger("refold.incidents")

Kind = Literal[
    "drift",
    "dead_letters",
    "stalled",
    "lag",
    "held_back",
    "held_snapshot",
    "missed_notification",
    "log_damage",
    "impure_transform",
    "foreign_cluster",
    "hot_key",
    "hidden",
    "pressure",
    "capture_gap",
    "sink",
    "undelivered",
    "outbox_collapsed",
    "anomaly",
    "archive",
    "archive_damage",
    "backfill_paused",
    "canary_aborted",
    "purge",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
LISTENER = "listener"
"""Who finds and ends incidents of missed notifications: the workers themselves, and none of their duties."""
ONLY_NOTICED: frozenset[Kind] = frozenset(
    {"drift", "log_damage", "archive_damage", "impure_transform", "foreign_cluster", "hot_key", "hidden"}
)
"""Kinds whose start is unknown: their `started_at` is the time of detection."""
REMEDIES: Mapping[Kind, str] = {
    "drift": "A worker heals the rows. If the incident stays open, `refold reconcile` shows why.",
    "dead_letters": "Fix the cause (`refold deadletters list`), then run `refold deadletters retry NAME`.",
    "stalled": "Fix the error, start workers (`refold worker`), or end the session with the given pid.",
    "lag": "Start more workers if this recurs: `refold worker --processes N`.",
    "held_back": "End the session with SELECT pg_terminate_backend(PID), or run COMMIT or ROLLBACK PREPARED 'GID'.",
    "held_snapshot": "End the session that holds it, see above. Until then updates of frequent keys get slower.",
    "missed_notification": "Events are late by `--poll` at most. `refold doctor` checks why notifications are lost.",
    "log_damage": "Restore the named events, with `refold archive restore SEGMENT` or from a backup, or run"
    " `refold scrub accept SEGMENT --reason …`.",
    "impure_transform": "Make the transform depend on its event alone, then run `refold deploy`.",
    "foreign_cluster": "Run `refold recover` until it completes.",
    "hot_key": "Write the WHERE that is shown into the projection, and run `refold deploy`. Or write the query so that"
    " `refold explain NAME` shows merge, members or funnel.",
    "capture_gap": "Remove the cause of the error. Then run `refold captures resume NAME`, and after it"
    " `refold captures backfill NAME`.",
    "sink": "Mend what the receiver says (`refold sinks show NAME`). Nothing is lost; deliveries go on by themselves.",
    "undelivered": "Look at the rows with `refold sinks undelivered NAME`, mend the receiver, then `refold sinks"
    " undelivered NAME --retry`.",
    "outbox_collapsed": "Nothing to do for the data: as soon as the receiver answers, it is brought up to date.",
    "anomaly": "Look at the source of the series (`refold anomalies`). Unusual is not wrong: metrics are what the log"
    " says, and nothing was changed.",
    "archive": "Mend what the store says (`refold archive status`). The log keeps what is not archived.",
    "archive_damage": "Find out what changed the store. While the log has the segment, workers write the file again."
    " The file of a purged segment has to be brought back under its name. But not after a restore of this database: an"
    " erasure may have written the file anew, and `refold recover` takes the new one. `refold archive verify` looks"
    " again.",
    "backfill_paused": "Find out why live metrics are late (`refold status`). Then run `refold backfill resume NAME`,"
    " with a larger --freshness if they may be later.",
    "purge": "`refold archive purge --dry-run` says for each segment what is in the way, and what to do.",
    "canary_aborted": "Look at the evidence and correct the file: `refold deploy --canary`. Or take the change back:"
    " `refold deploy`.",
    "pressure": "Free what the evidence names, or raise the limit. Events are taken again by themselves.",
    "hidden": "A worker recreates the view. If the incident stays open, `refold reconcile` shows why.",
}
"""Remedies for an operator, by kind of open incident."""


@dataclass(frozen=True, slots=True)
class Incident:
    """A row of `refold.incidents`.

    Args:
        kind: kind of fault.
        subject: affected object: a projection, a build's table, a process id, a gid, a segment.
        started_at: when the fault began, as far as known.
        detected_at: when the fault was detected.
        detected_by: duty or command that detected it.
        resolved_at: when the fault was resolved; None while the incident is open.
        resolved_by: duty, command or person that resolved it.
        evidence: observations.
        outcome: actions taken.
        acknowledged_at: when a person took it on; None: nobody has.
        acknowledged_by: that person.
    """

    incident_id: int
    kind: Kind
    subject: str
    started_at: datetime
    detected_at: datetime
    detected_by: str
    resolved_at: datetime | None
    resolved_by: str | None
    evidence: Mapping[str, Any]
    outcome: Mapping[str, Any] | None
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None


def detect(
    conn: psycopg.Connection,
    kind: Kind,
    subject: str,
    *,
    by: str,
    evidence: Mapping[str, Any],
    started_at: datetime | None = None,
) -> int:
    """Open an incident, or update the evidence of the open one.

    Args:
        conn: acts as refold_worker; the caller's transaction.
        kind: kind of fault.
        subject: affected object.
        by: duty or command that detected it.
        evidence: observations; they replace the same fields of an open incident.
        started_at: when the fault began; default: now. An open incident keeps its own.

    Returns:
        The incident's number.
    """
    # Duties come by every few seconds while a fault lasts: an INSERT that conflicts would use up a number each time.
    parameters = {"kind": kind, "subject": subject, "started": started_at, "by": by, "evidence": Jsonb(dict(evidence))}
    row = conn.execute(
        """
        UPDATE refold.incidents SET evidence = evidence || %(evidence)s
        WHERE kind = %(kind)s AND subject = %(subject)s AND resolved_at IS NULL
        RETURNING incident_id
        """,
        parameters,
    ).fetchone()
    if row is None:
        row = one_row(
            conn,
            """
            INSERT INTO refold.incidents AS open (kind, subject, started_at, detected_by, evidence)
            VALUES (%(kind)s, %(subject)s, least(coalesce(%(started)s, clock_timestamp()), clock_timestamp()),
                    %(by)s, %(evidence)s)
            ON CONFLICT (kind, subject) WHERE resolved_at IS NULL
                DO UPDATE SET evidence = open.evidence || excluded.evidence
            RETURNING incident_id
            """,
            parameters,
        )
        log.info("incident opened: %s of %s, detected by %s (`refold incidents --open`)", kind, subject, by)
    return int(row[0])


def resolve(
    conn: psycopg.Connection, kind: Kind, subject: str, *, by: str, outcome: Mapping[str, Any] | None = None
) -> bool:
    """Resolve the open incident of a kind and subject; return False if there is none.

    Args:
        conn: acts as refold_worker; the transaction that removed the fault.
        kind: kind of fault.
        subject: affected object.
        by: duty, command or person that resolved it.
        outcome: actions taken.
    """
    resolved = conn.execute(
        """
        UPDATE refold.incidents
        SET resolved_at = greatest(clock_timestamp(), detected_at), resolved_by = %s, outcome = %s
        WHERE kind = %s AND subject = %s AND resolved_at IS NULL
        """,
        (by, None if outcome is None else Jsonb(dict(outcome)), kind, subject),
    ).rowcount
    if resolved:
        log.info("incident resolved: %s of %s, by %s", kind, subject, by)
    return resolved > 0


def acknowledge(conn: psycopg.Connection, incident_id: int, *, by: str | None = None) -> Incident | None:
    """Record that a person has taken on an open incident; who did first stays. Return it, or None if none is open.

    Args:
        conn: acts as refold_worker; the caller's transaction.
        incident_id: number of the incident.
        by: the person; by default the login.
    """
    conn.execute(
        "UPDATE refold.incidents SET acknowledged_at = clock_timestamp(), acknowledged_by = coalesce(%s, session_user)"
        " WHERE incident_id = %s AND resolved_at IS NULL AND acknowledged_at IS NULL",
        (by, incident_id),
    )
    found = find(conn, "i.incident_id = %s AND i.resolved_at IS NULL", incident_id)
    return found[0] if found else None


def become(
    conn: psycopg.Connection, incident_id: int, kind: Kind, subject: str, evidence: Mapping[str, Any] | None = None
) -> None:
    """Change the kind or subject of an open incident when its cause is known better.

    Args:
        conn: acts as refold_worker; the caller's transaction, in which no incident of that kind and subject is open.
        incident_id: id of the incident.
        kind: its new kind.
        subject: its new subject.
        evidence: observations in place of the earlier ones; None keeps these.
    """
    conn.execute(
        "UPDATE refold.incidents SET kind = %s, subject = %s, evidence = coalesce(%s, evidence)"
        " WHERE incident_id = %s AND resolved_at IS NULL",
        (kind, subject, None if evidence is None else Jsonb(dict(evidence)), incident_id),
    )


def inspects(conn: psycopg.Connection) -> bool:
    """Return whether this session may read the evidence, which may name events and keys."""
    row = conn.execute("SELECT has_column_privilege('refold.incidents', 'evidence', 'SELECT')").fetchone()
    return row == (True,)


def open_incidents(conn: psycopg.Connection, *kinds: Kind, subject: str | None = None) -> list[Incident]:
    """Return the open incidents of some kinds, oldest first; with a subject, only those about it."""
    if subject is None:
        return find(conn, "i.kind = ANY (%s) AND i.resolved_at IS NULL", list(kinds))
    return find(conn, "i.kind = ANY (%s) AND i.resolved_at IS NULL AND i.subject = %s", list(kinds), subject)


def readable(
    conn: psycopg.Connection,
    *,
    kind: Kind | None = None,
    open_only: bool = False,
    within: timedelta | None = None,
) -> list[Incident]:
    """Return incidents, oldest first; an observer gets them without evidence and outcome.

    Args:
        conn: acts as one of `READERS`.
        kind: only those of one kind.
        open_only: only those that are open.
        within: only those that are open, or were so long ago.
    """
    conditions: list[tuple[str, object]] = []
    if kind is not None:
        conditions.append(("i.kind = %s", kind))
    if within is not None:
        conditions.append(("coalesce(i.resolved_at, now()) >= now() - %s", within))
    condition = " AND ".join(
        ["i.resolved_at IS NULL" if open_only else "true", *(condition for condition, _ in conditions)]
    )
    parameters = [parameter for _, parameter in conditions]
    if inspects(conn):
        return find(conn, condition, *parameters)
    with conn.cursor(row_factory=class_row(Incident)) as cursor:
        query = f"""
            SELECT i.incident_id, i.kind, i.subject, i.started_at, i.detected_at, i.detected_by, i.resolved_at,
                   i.resolved_by, '{{}}'::jsonb AS evidence, NULL::jsonb AS outcome, i.acknowledged_at,
                   i.acknowledged_by
            FROM refold.incidents AS i WHERE {condition} ORDER BY i.incident_id
        """
        return cursor.execute(query.encode(), parameters).fetchall()


def find(conn: psycopg.Connection, condition: str = "true", *parameters: object) -> list[Incident]:
    """Return the incidents that satisfy an SQL condition over `i` (a row of refold.incidents), oldest first."""
    with conn.cursor(row_factory=class_row(Incident)) as cursor:
        query = f"SELECT i.* FROM refold.incidents AS i WHERE {condition} ORDER BY i.incident_id"
        return cursor.execute(query.encode(), parameters).fetchall()
