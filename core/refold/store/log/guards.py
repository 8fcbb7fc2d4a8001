"""The one door through the guards of the log, the ledger and the cursors, which stand against their owner too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import psycopg

from refold.errors import BuildError, DatabaseError
from refold.postgres.retry import in_short_attempts
from refold.postgres.rows import one_row

T = TypeVar("T")

GUARDS = ("refuse_change", "refuse_change_of_row")
"""Of the ledger, the log and its segments: they keep statements and rows."""
_AGAIN = {"O": "ENABLE", "A": "ENABLE ALWAYS", "R": "ENABLE REPLICA", "D": "DISABLE"}
"""How a trigger stands again as it stood."""
WRITERS_S = 60.0
"""Seconds for which transactions that have written to the table are waited for."""


def require_owner(conn: psycopg.Connection) -> None:
    """Refuses a login that cannot act as the owner.

    Raises:
        DatabaseError: it cannot.
    """
    row = one_row(conn, "SELECT session_user, pg_has_role(session_user, 'refold_owner', 'MEMBER')")
    if not row[1]:
        raise DatabaseError(
            f"{row[0]} may not act as refold_owner, who alone may rewrite the coordinates of the log",
            remedy=f'Log in as who installed refold, or as a superuser: GRANT refold_owner TO "{row[0]}";',
        )


def guards_disabled(conn: psycopg.Connection, table: str, guards: Sequence[str], work: Callable[[], T]) -> T:
    """Runs some work as refold_owner, in a transaction in which the guards of a table stand aside.

    DISABLE TRIGGER takes a lock that no writer of the table holds at the same time, and is undone with the
    transaction, however that ends: nobody else ever sees the table unguarded.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
        table: its qualified name.
        guards: the triggers that stand aside.
        work: what to do meanwhile.

    Raises:
        BuildError: a transaction that wrote to the table stays open.
    """

    def unguarded() -> T:
        conn.execute("SET LOCAL ROLE refold_owner")
        stood = conn.execute(
            "SELECT tgname, tgenabled::text FROM pg_trigger WHERE tgrelid = %s::regclass AND tgname = ANY (%s)",
            (table, list(guards)),
        ).fetchall()
        for guard, _ in stood:
            conn.execute(f"ALTER TABLE {table} DISABLE TRIGGER {guard}".encode())
        conn.execute("SET LOCAL lock_timeout = 0")
        done = work()
        for guard, role in stood:
            conn.execute(f"ALTER TABLE {table} {_AGAIN[role]} TRIGGER {guard}".encode())
        return done

    try:
        return in_short_attempts(conn, WRITERS_S, unguarded)
    except psycopg.errors.LockNotAvailable as error:
        raise BuildError(
            f"a transaction that wrote to {table} has been open for {WRITERS_S:.0f} s",
            remedy="End it (see pg_stat_activity for 'idle in transaction'), then run `refold recover` again.",
        ) from error
