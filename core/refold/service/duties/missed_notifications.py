"""Lost wake-ups that nobody has seen again. Sleepers themselves notice them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import psycopg

from refold.store.builds.compiled import Compiler
from refold.store.incidents import Incident, find, resolve

NAME = "wake-ups"
QUIET = timedelta(minutes=10)
"""After so long without another one the incident is over: who saw it may have ended before it heard the bell again."""


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Closes the incident `lost_wake_up` when it has not been seen for a while."""
    with conn.transaction():
        row = conn.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        for incident in over(find(conn, "i.kind = 'lost_wake_up' AND i.resolved_at IS NULL"), row[0]):
            resolve(conn, incident.kind, incident.subject, by=NAME, outcome={"because": "not seen again"})


def over(incidents: Sequence[Incident], now: datetime) -> list[Incident]:
    """Those that were last seen long ago, or in the future, by a clock that was ahead. Pure."""
    return [one for one in incidents if abs(now - datetime.fromisoformat(one.evidence["seen_at"])) > QUIET]
