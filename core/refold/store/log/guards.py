"""The only way to disable the guards of log, ledger and cursors, which also restrict their owner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import psycopg

from refold.errors import BuildError, DatabaseError
from refold.postgres.retry import in_short_attempts
from refold.postgres.rows import one_row

T = TypeVar("T")

GUARDS = ("refuse_change", "refuse_change_of_row")
"""Triggers of the ledger, the log and its segments that guard statements and rows."""
_AGAIN = {"O": "ENABLE", "A": "ENABLE ALWAYS", "R": "ENABLE REPLICA", "D": "DISABLE"}
"""Statements that restore the former state of a trigger."""
WRITERS_S = 60.0
"""Seconds to wait for transactions that have written to the table."""


def require_owner(conn: psycopg.Connection) -> None:
    """Raise an error if the login may not act as refold_owner.

    Raises:
        DatabaseError: the login may not.
    """
    row = one_row(conn, "SELECT session_user, pg_has_role(session_user, 'refold_owner', 'MEMBER')")
    if not row[1]:
        raise DatabaseError(
            f"{row[0]} may not act as refold_owner, the only role that may change the log",
            remedy=f'As the login that installed refold, or as a superuser: GRANT refold_owner TO "{row[0]}";',
        )


def guards_disabled(conn: psycopg.Connection, table: str, guards: Sequence[str], work: Callable[[], T]) -> T:
    """Run a function as refold_owner, in a transaction in which the guards of a table are disabled.

    DISABLE TRIGGER takes a lock that conflicts with every writer of the table, and a rollback undoes it. So no other
    session ever sees the table without its guards.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
        table: qualified name of the table.
        guards: triggers to disable.
        work: function to run.

    Raises:
        BuildError: a transaction that has written to the table stays open.
    """

    def unguarded() -> T:
        conn.execute("SET LOCAL ROLE refold_owner")
        stood = conn.execute(
            "SELECT tgname, tgenabled::text FROM pg_trigger WHERE tgrelid = %s::regclass AND tgname = ANY (%s)",
            (table, list(guards)),
        ).fetchall()
        for guard, _ in stood:
            conn.execute(f"ALTER TABLE {table} DISABLE TRIGGER {guard}".encode())
        conn.execute("SET LOCAL lock_timeout = '5min'")
        done = work()
        for guard, role in stood:
            conn.execute(f"ALTER TABLE {table} {_AGAIN[role]} TRIGGER {guard}".encode())
        return done

    try:
        return in_short_attempts(conn, WRITERS_S, unguarded)
    except psycopg.errors.LockNotAvailable as error:
        raise BuildError(
            f"a transaction that has written to {table} has been open for {WRITERS_S:.0f} s",
            remedy="End it (see pg_stat_activity for 'idle in transaction'), then run the command again.",
        ) from error
