"""A nested transaction whose rollback keeps prepared statements."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import psycopg


@contextmanager
def savepoint(conn: psycopg.Connection) -> Generator[None]:
    """Roll back the changes inside after an error, and keep the session's prepared statements.

    psycopg's own blocks forget them all at each rollback, in case one of them reads what was created inside; then every
    attempt of a search is planned anew, over 700 segments in a second. The server keeps them across a rollback.

    Args:
        conn: in a transaction; nothing may be created or dropped inside.
    """
    conn.execute("SAVEPOINT attempt")
    try:
        yield
    except BaseException:
        if not conn.closed:
            # Past psycopg, which would recognise the command.
            conn.pgconn.exec_(b"ROLLBACK TO SAVEPOINT attempt; RELEASE SAVEPOINT attempt")
        raise
    conn.execute("RELEASE SAVEPOINT attempt")
