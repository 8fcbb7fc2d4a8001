"""Transactions that see the database as of one instant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg


@contextmanager
def snapshot(conn: psycopg.Connection) -> Iterator[None]:
    """Opens a transaction that only reads: all statements of the block see what was committed before its first.

    Args:
        conn: in autocommit mode.
    """
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield
