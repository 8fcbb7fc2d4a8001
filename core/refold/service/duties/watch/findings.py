"""What was found unusual becomes incidents, which end by themselves."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import psycopg

from refold.service.duties.findings import DutyFinding
from refold.store.incidents import detect, open_incidents, resolve
from refold.store.series import Series, number_of

NAME = "anomalies"
"""Name of the duty."""


def record(
    conn: psycopg.Connection, known: Sequence[Series], found: Sequence[DutyFinding], judged: Collection[str]
) -> None:
    """Open an incident for each finding, and resolve those that are back in their band or no longer kept.

    Args:
        conn: acts as refold_worker; the caller's transaction.
        known: all series.
        found: what is unusual.
        judged: subjects that have been judged.
    """
    for one in found:
        detect(conn, "anomaly", one.subject, by=NAME, evidence=one.evidence, started_at=one.started_at)
    unusual = {one.subject for one in found}
    numbers = {one.series_id for one in known}
    for incident in open_incidents(conn, "anomaly"):
        if incident.subject in unusual:
            continue
        if incident.subject in judged:
            resolve(conn, "anomaly", incident.subject, by=NAME, outcome={"because": "back in its band, or muted"})
        elif number_of(incident.subject) not in numbers:
            resolve(conn, "anomaly", incident.subject, by=NAME, outcome={"because": "the series is no longer kept"})


def muted_now(conn: psycopg.Connection, known: Sequence[Series]) -> set[int]:
    """Return the numbers of the series that are muted."""
    (now,) = conn.execute("SELECT clock_timestamp()").fetchone() or (None,)
    return {one.series_id for one in known if one.muted_until is not None and now is not None and one.muted_until > now}
