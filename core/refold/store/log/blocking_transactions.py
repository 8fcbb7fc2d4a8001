"""Transactions that have written to the log and are still open; they block their events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row

from refold.postgres.rows import one_row


@dataclass(frozen=True, slots=True)
class BlockingTransaction:
    """A transaction that has written to the log and has not ended; its events become visible when it commits.

    Args:
        name: process id of its session, or gid of a prepared transaction.
        seconds: its age; None if the login role may not see it.
        what: application of the session, or role that prepared the transaction.
        since: when it began, or was prepared.
        owner: its database role.
    """

    name: str
    seconds: float | None
    what: str
    since: datetime | None
    owner: str


def blocking_transactions(conn: psycopg.Connection) -> tuple[list[BlockingTransaction], list[BlockingTransaction]]:
    """Return the open and the prepared transactions that block events, oldest first.

    Args:
        conn: acts as a role that may use refold's schema, in the caller's transaction. From here on it acts as the
            login role, because only that role may see other sessions.
    """
    # The login role need not be allowed to look a name up in refold's schema.
    row = one_row(conn, "SELECT 'refold.events'::regclass::oid")
    log = int(row[0])
    conn.execute("SET LOCAL ROLE NONE")
    return _holders(conn, _SESSIONS, log), _holders(conn, _PREPARED, log)


# A transaction that has an id and has written to the log; a reader takes another lock. Whoever writes locks the log
# itself, beside the segment.
_SESSIONS = """
SELECT DISTINCT ON (a.xact_start, a.pid)
    a.pid::text AS name, extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds,
    coalesce(a.application_name, '') AS what, a.xact_start AS since, coalesce(a.usename, '')::text AS owner
FROM pg_locks AS l
JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.relation = %s::oid AND l.mode = 'RowExclusiveLock' AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND a.pid <> pg_backend_pid()
ORDER BY a.xact_start, a.pid
"""

# The locks of a prepared transaction have no process; one of them is on its own id.
_PREPARED = """
SELECT p.gid::text AS name, extract(epoch FROM clock_timestamp() - p.prepared)::float8 AS seconds,
       p.owner::text AS what, p.prepared AS since, p.owner::text AS owner
FROM pg_prepared_xacts AS p
WHERE p.database = current_database()
  AND EXISTS (
      SELECT FROM pg_locks AS own
      JOIN pg_locks AS l ON l.virtualtransaction = own.virtualtransaction AND l.pid IS NULL
      WHERE own.transactionid = p.transaction AND own.pid IS NULL
        AND l.relation = %s::oid AND l.mode = 'RowExclusiveLock')
ORDER BY p.prepared, p.gid
"""


def _holders(conn: psycopg.Connection, query: str, log: int) -> list[BlockingTransaction]:
    with conn.cursor(row_factory=class_row(BlockingTransaction)) as cursor:
        return cursor.execute(query.encode(), (log,)).fetchall()
