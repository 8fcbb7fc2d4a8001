"""Wake-ups that should have come: an event that rang no bell although a worker slept by it.

The trigger on the log tries the sleepers' lock after its transaction has an id. So an event whose id is above one
that the sleeper drew after it had raised its flag must ring. When a poll finds such an event and the bell has
still not rung a moment later, the wake-up is lost: the doorbell is turned off for that producer, the queue of
notifications is full, or something between server and worker swallows them. Polling has already done the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
from psycopg.rows import class_row

from refold.model.stream.cursor import Snapshot
from refold.store.incidents import detect, resolve

GRACE = 0.5
"""Seconds for which a ring may be on its way after its event can be seen."""
SUBJECT = "doorbell"
DUTY = "doorbell"


@dataclass(frozen=True, slots=True)
class Silent:
    """An event that a poll found and that should have rung.

    Args:
        event_id: the first of them.
        recorded_at: when its transaction began.
        txid: its transaction.
        flag_txid: the sleeper's own id, drawn after its flag was up.
        queue_usage: how full the cluster's queue of notifications was, 0 to 1.
    """

    event_id: str
    recorded_at: datetime
    txid: int
    flag_txid: int
    queue_usage: float


def first_silent(conn: psycopg.Connection, flag_txid: int) -> Silent | None:
    """The first event above a sleeper's own transaction id, if there is any.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        flag_txid: see `Silent`.
    """
    with conn.cursor(row_factory=class_row(Silent)) as cursor:
        return cursor.execute(
            """
            SELECT event_id, recorded_at, txid::text::bigint AS txid, %s::bigint AS flag_txid,
                   pg_notification_queue_usage() AS queue_usage
            FROM refold.first_unread(%s::pg_snapshot, NULL, NULL, NULL, 1)
            -- Who turned it off for a role (for two-phase commit) has chosen to wait for the poll.
            WHERE NOT EXISTS (SELECT FROM pg_db_role_setting AS s WHERE 'refold.doorbell=off' = ANY (s.setconfig))
            """,
            (str(flag_txid), str(Snapshot(flag_txid + 1, flag_txid + 1, ()))),
        ).fetchone()


def lost(conn: psycopg.Connection, silent: Silent) -> None:
    """Opens the incident, or adds to it."""
    evidence = {
        "event": silent.event_id,
        "recorded_at": silent.recorded_at.isoformat(),
        "txid": silent.txid,
        "flag_txid": silent.flag_txid,
        "queue_usage": silent.queue_usage,
        "worker_pid": conn.info.backend_pid,
        "seen_at": datetime.now(UTC).isoformat(),
    }
    detect(conn, "lost_wake_up", SUBJECT, by=DUTY, evidence=evidence, started_at=silent.recorded_at)


def heard(conn: psycopg.Connection) -> None:
    """Closes the incident: the bell rings again."""
    resolve(conn, "lost_wake_up", SUBJECT, by=DUTY, outcome={"because": "the bell rang", "pid": conn.info.backend_pid})
