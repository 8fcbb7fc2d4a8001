"""The snapshot of a reader of the log, which keeps all segments until it ends."""

from __future__ import annotations

from contextlib import AbstractContextManager

import psycopg

from refold.postgres.snapshot import snapshot


def log_snapshot(conn: psycopg.Connection, *, read_only: bool = True) -> AbstractContextManager[None]:
    """Return a transaction that sees the database, and the whole log with it, as of one instant.

    Args:
        conn: may read the log; in autocommit mode.
        read_only: whether the transaction only reads.
    """
    return snapshot(conn, holding="refold.events", read_only=read_only)
