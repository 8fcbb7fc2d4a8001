"""Findings of duties, and their conversion to incidents that open and resolve automatically."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg

from refold.store.incidents import Kind, detect, open_incidents, resolve


@dataclass(frozen=True, slots=True)
class DutyFinding:
    """A fault that exists at this moment.

    Args:
        subject: affected object; at most one incident of a kind is open for it.
        started_at: when the fault began; None if unknown.
        evidence: observations, as JSON values.
    """

    subject: str
    started_at: datetime | None
    evidence: Mapping[str, Any] = field(default_factory=dict)


def record(conn: psycopg.Connection, kind: Kind, duty: str, findings: Iterable[DutyFinding]) -> None:
    """Open or update an incident for each finding, and resolve the incidents that were not found again.

    Args:
        conn: acts as refold_worker; one transaction is opened.
        kind: kind of fault.
        duty: name of the duty; only this duty resolves incidents of this kind.
        findings: all current faults of the kind.
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
