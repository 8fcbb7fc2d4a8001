"""The ledger after a restore: it must know exactly the ids that are in the log."""

from __future__ import annotations

from dataclasses import dataclass, field

import psycopg
from psycopg.rows import class_row

from refold.log.door import GUARDS, through

NAMED = 50
"""Ids that a report names."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """How ledger and log differ.

    Args:
        events: events in the log.
        lost: ids whose event is not in the log: it was lost with the restore, and its producer may send it again.
        unknown: events whose id is not in the ledger: they would get in a second time.
        changed: ids whose digest is not that of the event: a repetition would be taken for a conflict.
        lost_ids: the first of the lost.
        twice: ids that the log holds more than once, the first of them. That is damage, for a person to decide.
    """

    events: int
    lost: int
    unknown: int
    changed: int
    lost_ids: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)


_COMPARE = f"""
WITH log AS MATERIALIZED (
    SELECT event_id, refold.digest(user_id, action, ts, metadata, version) AS digest FROM refold.events
), counted AS (
    SELECT count(l.event_id) AS events,
           count(*) FILTER (WHERE l.event_id IS NULL) AS lost,
           count(*) FILTER (WHERE k.event_id IS NULL) AS unknown,
           count(*) FILTER (WHERE k.digest <> l.digest) AS changed
    FROM refold.event_ids AS k FULL JOIN log AS l USING (event_id)
)
SELECT c.*,
       ARRAY(SELECT event_id FROM refold.event_ids AS k
             WHERE c.lost > 0 AND NOT EXISTS (SELECT FROM log AS l WHERE l.event_id = k.event_id)
             ORDER BY event_id LIMIT {NAMED}) AS lost_ids,
       ARRAY(SELECT event_id FROM log GROUP BY event_id HAVING count(*) > 1 ORDER BY event_id LIMIT {NAMED}) AS twice
FROM counted AS c
"""


def compare(conn: psycopg.Connection) -> Ledger:
    """Compares the ledger with the log, reading both once or twice.

    Args:
        conn: acts as refold_worker.
    """
    with conn.cursor(row_factory=class_row(Ledger)) as cursor:
        found = cursor.execute(_COMPARE.encode()).fetchone()
    assert found is not None
    return found


def bring_in_order(conn: psycopg.Connection, found: Ledger) -> None:
    """Makes the ledger what the log says, where they differ.

    An id that stays in the ledger without its event would be refused as a duplicate for ever, although its producer
    may still have it.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
        found: how they differ.
    """
    if found.lost or found.changed:
        through(conn, "refold.event_ids", GUARDS, lambda: _correct(conn))
    if found.unknown:
        with conn.transaction():
            conn.execute("SET LOCAL ROLE refold_owner")
            # Sorted, as everybody inserts ids: two can then not wait for each other in a circle.
            conn.execute(
                """
                INSERT INTO refold.event_ids (event_id, digest)
                SELECT e.event_id, refold.digest(e.user_id, e.action, e.ts, e.metadata, e.version)
                FROM refold.events AS e
                WHERE NOT EXISTS (SELECT FROM refold.event_ids AS k WHERE k.event_id = e.event_id)
                ORDER BY e.event_id
                """
            )


def _correct(conn: psycopg.Connection) -> None:
    conn.execute(
        """
        DELETE FROM refold.event_ids AS k
        WHERE NOT EXISTS (SELECT FROM refold.events AS e WHERE e.event_id = k.event_id)
        """
    )
    conn.execute(
        """
        UPDATE refold.event_ids AS k
        SET digest = refold.digest(e.user_id, e.action, e.ts, e.metadata, e.version)
        FROM refold.events AS e
        WHERE e.event_id = k.event_id
          AND k.digest <> refold.digest(e.user_id, e.action, e.ts, e.metadata, e.version)
        """
    )
