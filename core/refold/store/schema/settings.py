"""From when on something is worth an incident: columns of `refold.settings`."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

from refold.postgres.rows import one_row


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, but for the sample.

    Args:
        lag_limit: a live metric may be so far behind the log.
        stalled_after: a build with work may stand still for so long.
        held_back_after: a transaction that has written to the log may stay open for so long.
        held_snapshot_after: a snapshot may be held for so long.
        impure_sample: events of each transform that are evaluated twice at a time.
        latency_days: how long latency figures are kept, days.
    """

    lag_limit: int
    stalled_after: int
    held_back_after: int
    held_snapshot_after: int
    impure_sample: int
    latency_days: int


def limits(conn: psycopg.Connection) -> Limits:
    """The limits in force; `UPDATE refold.settings SET lag_limit = …` changes them for all workers."""
    query = (
        "SELECT lag_limit, stalled_after, held_back_after, held_snapshot_after, impure_sample, latency_days"
        " FROM refold.settings"
    )
    return one_row(conn, query, row=class_row(Limits))
