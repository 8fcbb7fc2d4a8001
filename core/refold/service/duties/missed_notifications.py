"""The duty that resolves incidents of missed notifications when none was missed again; sleeping workers open them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import psycopg

from refold.postgres.rows import one_row
from refold.store.builds.compiled import Compiler
from refold.store.incidents import Incident, open_incidents, resolve

NAME = "missed notifications"
QUIET = timedelta(minutes=10)
"""Time without another missed notification after which the incident is resolved."""


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Resolve the incident `missed_notification` when no notification was missed for a while."""
    with conn.transaction():
        row = one_row(conn, "SELECT clock_timestamp()")
        for incident in over(open_incidents(conn, "missed_notification"), row[0]):
            resolve(
                conn, incident.kind, incident.subject, by=NAME, outcome={"because": "no notification was missed again"}
            )


def over(incidents: Sequence[Incident], now: datetime) -> list[Incident]:
    """Return the incidents last seen long ago, or in the future, by a clock that was ahead. Pure."""
    return [one for one in incidents if abs(now - datetime.fromisoformat(one.evidence["seen_at"])) > QUIET]
