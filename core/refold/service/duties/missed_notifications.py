"""Closes incidents of missed notifications that have not been seen again; sleeping workers open them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import psycopg

from refold.postgres.rows import one_row
from refold.store.builds.compiled import Compiler
from refold.store.incidents import Incident, open_incidents, resolve

NAME = "missed notifications"
QUIET = timedelta(minutes=10)
"""Time without another one after which the incident is over: the worker that saw it may have ended before that."""


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Closes the incident `missed_notification` when it has not been seen for a while."""
    with conn.transaction():
        row = one_row(conn, "SELECT clock_timestamp()")
        for incident in over(open_incidents(conn, "missed_notification"), row[0]):
            resolve(
                conn, incident.kind, incident.subject, by=NAME, outcome={"because": "no notification was missed again"}
            )


def over(incidents: Sequence[Incident], now: datetime) -> list[Incident]:
    """Those that were last seen long ago, or in the future, by a clock that was ahead. Pure."""
    return [one for one in incidents if abs(now - datetime.fromisoformat(one.evidence["seen_at"])) > QUIET]
