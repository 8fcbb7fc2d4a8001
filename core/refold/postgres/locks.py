"""Mutual exclusion of commands by a table lock that only refold's own roles can take.

An advisory lock can be taken by whoever may connect, and kept for ever. A lock on one of refold's tables cannot: only
who may change the table gets one of that strength. The mode conflicts with itself and with no reader or writer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from refold.errors import BuildError, DatabaseError, RefoldError
from refold.postgres.connect import Role, connection
from refold.postgres.lock_waits import LockWatch
from refold.postgres.proxy import proxied
from refold.postgres.rows import one_row

WAIT_S = 300.0
"""Seconds to wait for another command to end."""
_ROUND_S = 5.0
"""Seconds of one attempt."""

_CONFLICTS = [
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
]

_HELD = """l.locktype = 'relation' AND l.granted AND l.mode = ANY (%s) AND l.relation = to_regclass(%s)
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"""

# The session is another login's, perhaps, of which little can be seen; a prepared transaction has none.
_HOLDERS = f"""
SELECT coalesce('pid ' || l.pid, 'the prepared transaction ' || p.gid, 'a session'),
       coalesce(a.usename::text, p.owner::text), nullif(a.application_name, ''),
       to_char(coalesce(a.xact_start, p.prepared) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')
FROM pg_locks AS l
LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
LEFT JOIN pg_locks AS own
    ON l.pid IS NULL AND own.locktype = 'transactionid' AND own.virtualtransaction = l.virtualtransaction
LEFT JOIN pg_prepared_xacts AS p ON p.transaction = own.transactionid
WHERE {_HELD}
ORDER BY l.pid
"""


def holder(conn: psycopg.Connection, table: str) -> str | None:
    """Return the holder of the lock, in words; None if the lock is free.

    Args:
        conn: in autocommit mode.
        table: qualified name of the locked table.
    """
    with conn.transaction():
        # The login may see more of other sessions than the role it acts as.
        conn.execute("SET LOCAL ROLE NONE")
        rows = conn.execute(_HOLDERS, (_CONFLICTS, table)).fetchall()
    return "; ".join(_named(*row) for row in rows) or None


def taken(conn: psycopg.Connection, table: str) -> bool:
    """Return whether anybody holds the lock; on a standby, which does not see the locks of its primary, True.

    Args:
        conn: acts as any role.
        table: qualified name of the locked table.
    """
    query = f"SELECT pg_is_in_recovery() OR EXISTS (SELECT FROM pg_locks AS l WHERE {_HELD})"
    (found,) = one_row(conn, query, (_CONFLICTS, table))
    return bool(found)


def _named(who: str, user: str | None, application: str | None, since: str | None) -> str:
    more = [user, application, None if since is None else f"since {since}"]
    told = ", ".join(one for one in more if one)
    return f"{who} ({told})" if told else who


@contextmanager
def alone(
    conn: psycopg.Connection,
    table: str,
    what: str,
    role: Role,
    *,
    seconds: float = WAIT_S,
    busy: Callable[[str], RefoldError | None] = lambda holder: None,
) -> Iterator[None]:
    """Hold an exclusive lock until the block ends, over all its transactions.

    A second connection holds the lock, because the block takes many transactions. It has neither a snapshot nor a
    transaction id, so that no reader, no cursor and no vacuum waits for it.

    Args:
        conn: in autocommit mode; names the database.
        table: qualified name of the table to lock.
        what: name of the command, for the message.
        role: role that may change the table.
        seconds: longest time to wait for another command.
        busy: returns the error for a lock that another session holds, given its holder; None: that of this function.

    Raises:
        BuildError: another session holds the lock; the message names it.
        DatabaseError: a proxy pools transactions, so that a session of the pool would hold the lock.
    """
    if proxied(conn):
        raise DatabaseError(
            f"{what} needs its own session, but a proxy pools transactions on this connection",
            remedy="Connect to the server directly, or through a pool in session mode.",
        )
    url = make_conninfo(conn.info.dsn, password=conn.info.password or None)
    name = conn.info.parameter_status("application_name") or "refold"
    with connection(url, role, application_name=name) as other:
        with LockWatch(other):
            _take(conn, other, table, what, seconds, busy)
        yield


def _take(
    conn: psycopg.Connection,
    other: psycopg.Connection,
    table: str,
    what: str,
    seconds: float,
    busy: Callable[[str], RefoldError | None],
) -> None:
    left = seconds
    while True:
        other.execute(
            "SELECT set_config('lock_timeout', %s, true)", (f"{max(0.0, min(left, _ROUND_S)) * 1000 + 1:.0f}ms",)
        )
        lock = sql.SQL("LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE").format(sql.Identifier(*table.split(".")))
        try:
            other.execute(lock)
            return
        except psycopg.errors.LockNotAvailable:
            other.rollback()
            left -= _ROUND_S
            found = holder(conn, table)
            if left <= 0 and found is not None:
                waited = f"after {seconds:.0f} s another session still does: " if seconds else "another session does: "
                raise busy(found) or BuildError(
                    f"only one session may {what} at a time, and {waited}{found}",
                    remedy="Wait until it ends, or end it: SELECT pg_terminate_backend(PID);",
                ) from None
