"""What a duty found, and how that becomes incidents which open and close by themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg

from refold.store.incidents import Kind, detect, open_incidents, resolve


@dataclass(frozen=True, slots=True)
class DutyFinding:
    """Something that is wrong at this moment.

    Args:
        subject: what it is about; at most one incident of a kind is open for it.
        started_at: when it began; None where that is not known.
        evidence: what was seen, as JSON can say it.
    """

    subject: str
    started_at: datetime | None
    evidence: Mapping[str, Any] = field(default_factory=dict)


def record(conn: psycopg.Connection, kind: Kind, duty: str, findings: Iterable[DutyFinding]) -> None:
    """Opens an incident for each finding or adds to the open one, and resolves those that are not found any more.

    Args:
        conn: acts as refold_worker; one transaction is opened.
        kind: what sort of fault.
        duty: who looked; it is the only one that resolves incidents of this kind.
        findings: all that is wrong now.
    """
    found = {finding.subject: finding for finding in findings}
    with conn.transaction():
        for finding in found.values():
            detect(
                conn, kind, finding.subject, by=duty, evidence=finding.evidence, started_at=finding.started_at
            )  # fmt: skip
        for incident in open_incidents(conn, kind):
            if incident.subject not in found:
                resolve(conn, kind, incident.subject, by=duty, outcome={"because": "not found again"})
