"""Transactions that see the database as of one instant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql


@contextmanager
def snapshot(conn: psycopg.Connection, *, holding: str | None = None, read_only: bool = True) -> Iterator[None]:
    """Opens a transaction whose statements all see what was committed before its first.

    Args:
        conn: in autocommit mode.
        holding: qualified name of a partitioned table that keeps its partitions until the end. It is locked before the
            snapshot is taken: after it, a partition could be detached in between, and a snapshot that is older than the
            detaching would neither show its rows nor what was recorded of it.
        read_only: whether the transaction only reads.
    """
    with conn.transaction():
        conn.execute(f"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ{', READ ONLY' if read_only else ''}".encode())
        if holding is not None:
            # LOCK takes no snapshot.
            conn.execute(sql.SQL("LOCK TABLE ONLY {} IN ACCESS SHARE MODE").format(sql.Identifier(*holding.split("."))))
        yield
