"""Transactions that hold locks for which refold's sessions wait, or which exclude them from a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row


@dataclass(frozen=True, slots=True)
class LockHolder:
    """A transaction that keeps refold from its tables.

    Args:
        pid: process id of its session; None for a prepared transaction.
        gid: id of the prepared transaction.
        owner: its database role.
        application: application name of its session.
        since: when it began, or was prepared.
        seconds: its age; None if the login role may not see it.
        tables: tables that it excludes refold from.
        waiting: process ids of refold's sessions that wait for it now.
        query: its latest query, if the login may see it.
    """

    pid: int | None
    gid: str | None
    owner: str | None
    application: str | None
    since: datetime | None
    seconds: float | None
    tables: list[str]
    waiting: list[int]
    query: str | None


# Modes that exclude readers or writers. Locks on rows show only while somebody waits for them.
_HOLDERS = """
WITH strong AS (
    SELECT l.pid, l.virtualtransaction, array_agg(DISTINCT n.nspname || '.' || c.relname) AS tables
    FROM pg_locks AS l
    JOIN pg_class AS c ON c.oid = l.relation
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE l.locktype = 'relation' AND l.granted
      AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
      AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
      AND n.nspname IN ('refold', 'refold_builds', 'metrics') AND c.relkind IN ('r', 'p', 'v')
    GROUP BY l.pid, l.virtualtransaction
),
waits AS (
    SELECT blocker AS pid, array_agg(DISTINCT a.pid) AS waiting
    FROM pg_stat_activity AS a CROSS JOIN LATERAL unnest(pg_blocking_pids(a.pid)) AS blocker
    WHERE a.datname = current_database() AND a.wait_event_type = 'Lock' AND a.application_name LIKE 'refold%%'
    GROUP BY blocker
)
SELECT a.pid, NULL AS gid, a.usename::text AS owner, a.application_name AS application, a.xact_start AS since,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds,
       coalesce(s.tables, '{}') AS tables, coalesce(w.waiting, '{}') AS waiting,
       CASE WHEN a.query <> '<insufficient privilege>' THEN a.query END AS query
FROM pg_stat_activity AS a
LEFT JOIN strong AS s ON s.pid = a.pid
LEFT JOIN waits AS w ON w.pid = a.pid
WHERE (s.pid IS NOT NULL OR w.pid IS NOT NULL OR (a.pid = ANY (%s) AND a.xact_start IS NOT NULL))
  AND a.application_name NOT LIKE 'refold%%' AND a.pid <> pg_backend_pid()
  AND a.backend_type = 'client backend'
UNION ALL
SELECT NULL, p.gid, p.owner::text, NULL, p.prepared,
       extract(epoch FROM clock_timestamp() - p.prepared)::float8, s.tables, '{}', NULL
FROM strong AS s
JOIN pg_locks AS own
    ON own.locktype = 'transactionid' AND own.pid IS NULL AND own.virtualtransaction = s.virtualtransaction
JOIN pg_prepared_xacts AS p ON p.transaction = own.transactionid
WHERE s.pid IS NULL
ORDER BY since, pid
"""


def lock_holders(conn: psycopg.Connection, known: Sequence[int] = ()) -> list[LockHolder]:
    """Return the transactions of others that keep refold from its tables, oldest first.

    Args:
        conn: in the caller's transaction. From here on it acts as the login role, because only that role may see other
            sessions.
        known: process ids of sessions to return also if no session waits for them at this moment.
    """
    conn.execute("SET LOCAL ROLE NONE")
    with conn.cursor(row_factory=class_row(LockHolder)) as cursor:
        return cursor.execute(_HOLDERS.encode(), (list(known),)).fetchall()
