"""`/pressure`: what holds producers back, and who does the work."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row

from refold.dashboard.ask import Ask
from refold.inspect.health import Health
from refold.store.pressure import Pressure, pressure


@dataclass(frozen=True, slots=True)
class DutyRun:
    """The last run of a duty.

    Args:
        name: the duty.
        started_at: when it started, UTC.
        seconds: how long it took; None while it runs, or if it was lost.
        failures: failures in a row.
    """

    name: str
    started_at: datetime
    seconds: float | None
    failures: int


@dataclass(frozen=True, slots=True)
class PressurePage:
    """What the page shows."""

    health: Health
    pressure: Pressure
    duties: list[DutyRun]


def read(ask: Ask) -> PressurePage:
    """Read the page."""
    held, duties = ask.observe(lambda conn: (pressure(conn), _duties(conn)))
    return PressurePage(ask.health(), held, duties)


def _duties(conn: psycopg.Connection) -> list[DutyRun]:
    with conn.cursor(row_factory=class_row(DutyRun)) as cursor:
        return cursor.execute(
            """
            SELECT name, started_at, failures,
                   CASE WHEN ended_at IS NOT NULL THEN
                       greatest(extract(epoch FROM ended_at - started_at), 0)::float8
                   END AS seconds
            FROM refold.duties ORDER BY failures DESC, name
            """
        ).fetchall()
