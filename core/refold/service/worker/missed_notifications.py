"""Missed notifications: events that were committed without a NOTIFY although a worker slept.

The trigger on the log tries the sleepers' lock after its transaction has an id. So an event whose id is above one
that the sleeper drew after it had marked itself asleep must notify. When a poll finds such an event and nothing has
arrived a moment later, the notification is missed: it is switched off for that producer, the cluster's queue is full,
or something between server and worker swallows it. Polling has already done the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
from psycopg.rows import class_row

from refold.model.stream.cursor import Snapshot
from refold.store.incidents import LISTENER, detect, resolve

GRACE = 0.5
"""Seconds that a notification may take after its event becomes visible."""
SUBJECT = "notify"


@dataclass(frozen=True, slots=True)
class Missed:
    """An event that a poll found although a notification should have announced it.

    Args:
        event_id: id of the first such event.
        recorded_at: when its transaction began.
        txid: its transaction.
        asleep_txid: the sleeper's own transaction id, drawn after it had marked itself asleep.
        queue_usage: fill level of the cluster's notification queue, 0 to 1.
    """

    event_id: str
    recorded_at: datetime
    txid: int
    asleep_txid: int
    queue_usage: float


def first_missed(conn: psycopg.Connection, asleep_txid: int) -> Missed | None:
    """Return the first event above a sleeper's own transaction id, if there is any.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        asleep_txid: see `Missed`.
    """
    with conn.cursor(row_factory=class_row(Missed)) as cursor:
        return cursor.execute(
            """
            SELECT event_id, recorded_at, txid::text::bigint AS txid, %s::bigint AS asleep_txid,
                   pg_notification_queue_usage() AS queue_usage
            FROM refold.first_unread(%s::pg_snapshot, NULL, NULL, NULL, 1)
            -- Who turned it off for a role (for two-phase commit) has chosen to wait for the poll.
            WHERE NOT EXISTS (SELECT FROM pg_db_role_setting AS s WHERE 'refold.notify=off' = ANY (s.setconfig))
            -- And so has the author of a capture with two_phase.
              AND NOT (starts_with(event_id, 'capture:') AND EXISTS (SELECT FROM refold.captures WHERE two_phase))
            """,
            (str(asleep_txid), str(Snapshot(asleep_txid + 1, asleep_txid + 1, ()))),
        ).fetchone()


def open_incident(conn: psycopg.Connection, missed: Missed) -> None:
    """Open the incident, or update its evidence."""
    evidence = {
        "event": missed.event_id,
        "recorded_at": missed.recorded_at.isoformat(),
        "txid": missed.txid,
        "asleep_txid": missed.asleep_txid,
        "queue_usage": missed.queue_usage,
        "worker_pid": conn.info.backend_pid,
        "seen_at": datetime.now(UTC).isoformat(),
    }
    detect(conn, "missed_notification", SUBJECT, by=LISTENER, evidence=evidence, started_at=missed.recorded_at)


def close_incident(conn: psycopg.Connection) -> None:
    """Resolve the incident: notifications arrive again."""
    resolve(
        conn,
        "missed_notification",
        SUBJECT,
        by=LISTENER,
        outcome={"because": "a notification arrived", "pid": conn.info.backend_pid},
    )
