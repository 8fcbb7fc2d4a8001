"""Incidents: what went wrong, from when it started to when it was resolved.

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
]
KINDS: tuple[Kind, ...] = get_args(Kind)
ONLY_NOTICED: frozenset[Kind] = frozenset(
    {"drift", "log_damage", "impure_transform", "foreign_cluster", "hot_key", "hidden"}
)
"""Kinds of which nobody can know when they began: `started_at` is when they were noticed."""
REMEDIES: Mapping[Kind, str] = {
    "drift": "it is being healed; when it stays open, `refold reconcile` says why.",
    "dead_letters": "mend the cause (`refold deadletters list`), then `refold deadletters retry NAME`.",
    "stalled": "read the error, start workers (`refold worker`), or end the session whose pid is named.",
    "lag": "more workers (`refold worker --processes N`), if it comes back.",
    "held_back": "end the session, SELECT pg_terminate_backend(PID); or COMMIT or ROLLBACK PREPARED 'GID'.",
    "held_snapshot": "end who holds it, as is said above. Until then rows that change often become slower.",
    "missed_notification": "nothing is late by more than `--poll`; `refold doctor` looks at what loses notifications.",
    "log_damage": "restore the events that are named from a backup, or `refold scrub accept SEGMENT --reason …`.",
    "impure_transform": "make the transform depend on its event alone, then `refold deploy`.",
    "foreign_cluster": "run `refold recover` to its end.",
    "hot_key": "leave the key out, or write the query so that `refold explain NAME` says merge, members or funnel.",
    "hidden": "its view is being made again; when it stays open, `refold reconcile` says why.",
}
"""What a person can do about an open incident of each kind."""


@dataclass(frozen=True, slots=True)
class Incident:
    """A row of `refold.incidents`.

    Args:
        kind: what sort of fault.
        subject: what it is about: a projection, a build's table, a process id, a gid, a segment.
        started_at: when the fault began, as well as that is known.
        detected_at: when it was noticed.
        detected_by: the duty or command that noticed it.
        resolved_at: when it was over; None while it is open.
        resolved_by: the duty, command or person that ended it.
        evidence: what was seen.
        outcome: what was done.
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


def detect(
    conn: psycopg.Connection,
    kind: Kind,
    subject: str,
    *,
    by: str,
    evidence: Mapping[str, Any],
    started_at: datetime | None = None,
) -> int:
    """Opens an incident, or brings the evidence of the open one up to date.

    Args:
        conn: acts as refold_worker; the caller's transaction.
        kind: what sort of fault.
        subject: what it is about.
        by: the duty or command that noticed it.
        evidence: what was seen; replaces the same fields of an open incident.
        started_at: when it began; by default now. That of an open incident stays.

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
        log.info("incident: %s of %s, noticed by %s (`refold incidents --open`)", kind, subject, by)
    return int(row[0])


def resolve(
    conn: psycopg.Connection, kind: Kind, subject: str, *, by: str, outcome: Mapping[str, Any] | None = None
) -> bool:
    """Closes the open incident of a kind and subject; False when there is none.

    Args:
        conn: acts as refold_worker; the transaction that did what resolved it.
        kind: what sort of fault.
        subject: what it is about.
        by: the duty, command or person that ended it.
        outcome: what was done.
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
        log.info("over: %s of %s, ended by %s", kind, subject, by)
    return resolved > 0


def become(conn: psycopg.Connection, incident_id: int, kind: Kind, subject: str) -> None:
    """Lets an open incident go on as one of another kind or subject: more is known about its cause by now.

    Args:
        conn: acts as refold_worker; the caller's transaction, in which none of that kind and subject is open.
        incident_id: which.
        kind: what it is now.
        subject: what it is about now.
    """
    conn.execute(
        "UPDATE refold.incidents SET kind = %s, subject = %s WHERE incident_id = %s AND resolved_at IS NULL",
        (kind, subject, incident_id),
    )


def inspects(conn: psycopg.Connection) -> bool:
    """Whether this session may see the evidence: what was seen, which may name events and keys."""
    row = conn.execute("SELECT has_column_privilege('refold.incidents', 'evidence', 'SELECT')").fetchone()
    return row == (True,)


def open_incidents(conn: psycopg.Connection, *kinds: Kind, subject: str | None = None) -> list[Incident]:
    """The incidents of some kinds that are open, oldest first; with a subject, the one about that."""
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
    """Incidents for any role that may look, oldest first; an observer gets them without evidence and outcome.

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
                   i.resolved_by, '{{}}'::jsonb AS evidence, NULL::jsonb AS outcome
            FROM refold.incidents AS i WHERE {condition} ORDER BY i.incident_id
        """
        return cursor.execute(query.encode(), parameters).fetchall()


def find(conn: psycopg.Connection, condition: str = "true", *parameters: object) -> list[Incident]:
    """Incidents that satisfy an SQL condition over `i` (a row of refold.incidents), oldest first."""
    with conn.cursor(row_factory=class_row(Incident)) as cursor:
        query = f"SELECT i.* FROM refold.incidents AS i WHERE {condition} ORDER BY i.incident_id"
        return cursor.execute(query.encode(), parameters).fetchall()
