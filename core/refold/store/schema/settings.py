"""Limits beyond which a duty opens an incident: columns of `refold.settings`."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits, in seconds unless stated otherwise.

    Args:
        lag_limit: longest lag of a live metric.
        stalled_after: longest time without progress of a build with work.
        held_back_after: longest age of an open transaction that has written to the log.
        held_snapshot_after: longest age of a snapshot.
        impure_sample: events of each transform that are evaluated twice at a time.
        latency_days: how long latencies are kept, days.
    """

    lag_limit: int
    stalled_after: int
    held_back_after: int
    held_snapshot_after: int
    impure_sample: int
    latency_days: int


def limits(conn: psycopg.Connection) -> Limits:
    """Read the limits; `UPDATE refold.settings SET lag_limit = …` changes them for all workers."""
    with conn.cursor(row_factory=class_row(Limits)) as cursor:
        row = cursor.execute(
            """
            SELECT lag_limit, stalled_after, held_back_after, held_snapshot_after, impure_sample, latency_days
            FROM refold.settings
            """
        ).fetchone()
    assert row is not None
    return row
