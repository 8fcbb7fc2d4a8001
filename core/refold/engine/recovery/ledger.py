"""The ledger (dedup table) after a restore: it must hold all ids of the log, and keeps all ids that it has.

The id of a lost event stays reserved: the event may return from a backup or an archive, and no other event may take its
id. The id is recorded as lost, and a producer that sends it again gets an error that says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import psycopg
from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from refold.model.stream.slices import POSITION_BITS
from refold.postgres.rows import one_row
from refold.store import archives
from refold.store.log.guards import GUARDS, guards_disabled
from refold.store.log.integrity import WHOLE_LOG, whole
from refold.store.log.seal import unseal

NAMED = 50
"""Most ids that a report names."""
REASON = "refold recover: the restored log is taken as correct"
"""Reason of the acceptance that a recovery records."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The differences between ledger and log.

    Args:
        events: events in the log.
        lost: ids whose event is missing from the log, without an acceptance that says so.
        unknown: events whose id is not in the ledger; such an event could be appended a second time.
        changed: ids whose digest or position differs from the event; a duplicate would count as a conflict.
        lost_ids: the first lost ids.
        twice: the first ids that the log holds more than once; that is damage, which a person must resolve.
    """

    events: int
    lost: int
    unknown: int
    changed: int
    lost_ids: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)


_OF_LOG = "(k.position < 1 OR k.position >= refold.log_floor())"
"""Condition on an id: its event was not purged. The archive alone has purged events, and their ids stay taken."""
_GONE = """k.digest = 0 AND EXISTS (
    SELECT FROM refold.erased_events AS x WHERE x.position = k.position AND x.done AND x.digest IS NULL)"""
"""Condition on a row of the ledger: an erasure has removed its event."""
_COMPARE = f"""
WITH log AS MATERIALIZED (
    SELECT event_id, position, refold.digest(user_id, action, ts, metadata, version) AS digest FROM refold.events
), counted AS (
    SELECT count(l.event_id) AS events,
           count(*) FILTER (WHERE l.event_id IS NULL AND a.event_id IS NULL AND {_OF_LOG} AND NOT ({_GONE})) AS lost,
           count(*) FILTER (WHERE k.event_id IS NULL) AS unknown,
           -- Whatever comes under the id of an erased event is a duplicate: its digest stays 0.
           count(*) FILTER (WHERE k.digest NOT IN (0, l.digest) OR k.position <> l.position) AS changed
    FROM refold.event_ids AS k
    FULL JOIN log AS l ON l.event_id = k.event_id
    LEFT JOIN refold.lost_events AS a ON a.event_id = k.event_id
)
SELECT c.*,
       ARRAY(SELECT event_id FROM refold.event_ids AS k
             WHERE c.lost > 0 AND {_OF_LOG} AND NOT ({_GONE})
               AND NOT EXISTS (SELECT FROM log AS l WHERE l.event_id = k.event_id)
               AND NOT EXISTS (SELECT FROM refold.lost_events AS a WHERE a.event_id = k.event_id)
             ORDER BY event_id LIMIT {NAMED}) AS lost_ids,
       ARRAY(SELECT event_id FROM log GROUP BY event_id HAVING count(*) > 1 ORDER BY event_id LIMIT {NAMED}) AS twice
FROM counted AS c
"""


def compare(conn: psycopg.Connection) -> Ledger:
    """Return the differences between ledger and log, reading both once or twice.

    Args:
        conn: acts as refold_worker.
    """
    return one_row(conn, _COMPARE.encode(), row=class_row(Ledger))


def bring_in_order(conn: psycopg.Connection, found: Ledger) -> None:
    """Complete the ledger from the log, and record the ids whose events are lost.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
        found: the differences between ledger and log.
    """
    if found.lost or found.changed or found.unknown:
        guards_disabled(conn, "refold.event_ids", GUARDS, lambda: _accept(conn, found))


def _accept(conn: psycopg.Connection, found: Ledger) -> None:
    row = one_row(
        conn,
        "INSERT INTO refold.acceptances (segment, reason, missing, changed, unknown, details)"
        " VALUES (%s, %s, %s, %s, %s, %s) RETURNING acceptance",
        (WHOLE_LOG, REASON, found.lost, found.changed, found.unknown, Jsonb({"lost": found.lost_ids})),
    )
    conn.execute(
        f"""
        INSERT INTO refold.lost_events (event_id, acceptance)
        SELECT k.event_id, %s FROM refold.event_ids AS k
        WHERE NOT EXISTS (SELECT FROM refold.events AS e WHERE e.event_id = k.event_id)
          AND {_OF_LOG} AND NOT ({_GONE})
        ON CONFLICT DO NOTHING
        """.encode(),
        row,
    )
    conn.execute(
        """
        UPDATE refold.event_ids AS k
        SET digest = CASE WHEN k.digest = 0 THEN 0 ELSE c.digest END, position = e.position
        FROM refold.events AS e
        CROSS JOIN LATERAL (SELECT refold.digest(e.user_id, e.action, e.ts, e.metadata, e.version) AS digest) AS c
        WHERE e.event_id = k.event_id AND (k.digest NOT IN (0, c.digest) OR k.position <> e.position)
        """
    )
    # Sorted, like every insert of ids: that order prevents deadlocks.
    conn.execute(
        """
        INSERT INTO refold.event_ids (event_id, digest, position)
        SELECT e.event_id, refold.digest(e.user_id, e.action, e.ts, e.metadata, e.version), e.position
        FROM refold.events AS e
        WHERE NOT EXISTS (SELECT FROM refold.event_ids AS k WHERE k.event_id = e.event_id)
        ORDER BY e.event_id
        """
    )
    # The log is correct by definition now: workers seal its slices again.
    unseal(conn)
    archives.unprove(conn, rewritten=False)


def settle_lost(conn: psycopg.Connection) -> None:
    """Delete the records of lost events that are in the log again.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
    """
    with conn.transaction():
        conn.execute("SET LOCAL ROLE refold_owner")
        conn.execute("DELETE FROM refold.lost_events AS l USING refold.events AS e WHERE e.event_id = l.event_id")


def rehash(conn: psycopg.Connection) -> None:
    """Compute all digests with this server's hash functions, in portions, and delete the checksums of sealed slices.

    The old digests can no longer reveal changed content; the ids are still compared later. After a kill, a second run
    skips the digests that are done.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
    """
    for low, high in whole(conn):
        bounds = {
            "lower": -(2**63) if low is None else low << POSITION_BITS,
            "upper": 2**63 - 1 if high is None else (high + 1) << POSITION_BITS,
        }
        guards_disabled(conn, "refold.event_ids", GUARDS, partial(_digest, conn, bounds))
    with conn.transaction():
        conn.execute("SET LOCAL ROLE refold_owner")
        unseal(conn)
        archives.unprove(conn, rewritten=False)
    _reindex(conn)


def _digest(conn: psycopg.Connection, bounds: dict[str, int]) -> None:
    conn.execute(
        """
        UPDATE refold.event_ids AS k
        SET digest = refold.digest(e.user_id, e.action, e.ts, e.metadata, e.version)
        FROM refold.events AS e
        WHERE e.position >= %(lower)s AND e.position < %(upper)s AND e.event_id = k.event_id
          AND k.digest NOT IN (0, refold.digest(e.user_id, e.action, e.ts, e.metadata, e.version))
        """,
        bounds,
    )
    conn.execute(
        """
        UPDATE refold.erased_events AS x
        SET digest = refold.digest(e.user_id, e.action, e.ts, e.metadata, e.version)
        FROM refold.events AS e
        WHERE e.position >= %(lower)s AND e.position < %(upper)s AND x.position = e.position AND x.done
          AND x.digest <> refold.digest(e.user_id, e.action, e.ts, e.metadata, e.version)
        """,
        bounds,
    )


def _reindex(conn: psycopg.Connection) -> None:
    """Rebuild the indexes that hold hashes: a lookup by another hash function would find nothing there."""
    rows = conn.execute(
        r"""
        SELECT format('%I.%I', n.nspname, c.relname), pg_get_userbyid(c.relowner)
        FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname IN ('refold', 'refold_builds') AND c.relkind = 'i'
          AND pg_get_indexdef(i.indexrelid) ~ '\mhash\w*\('
        """
    ).fetchall()
    for index, owner in rows:
        with conn.transaction():
            conn.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(owner)))
            conn.execute(f"REINDEX INDEX {index}".encode())
