"""Damage to the log, as a superuser makes it: past every guard, and not by accident."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg


@contextmanager
def unguarded(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """A transaction of a superuser in which log and ledger have no guards, and so no ledger is asked either."""
    with conn.transaction():
        conn.execute("ALTER TABLE refold.events DISABLE TRIGGER USER")
        conn.execute("ALTER TABLE refold.event_ids DISABLE TRIGGER USER")
        yield
        conn.execute("SELECT refold.arm_guards()")


def tamper(conn: psycopg.Connection[Any], statement: str) -> int:
    """One statement past every guard; gives the number of rows."""
    with unguarded(conn):
        return conn.execute(statement.encode()).rowcount


def bring_late(conn: psycopg.Connection[Any], events: str) -> None:
    """Brings events behind every cursor that the ledger knows: as if a reader had passed them before they committed.

    Args:
        conn: a superuser's, in autocommit mode.
        events: a query for txid, event_id, user_id, action, ts and metadata.
    """
    with unguarded(conn):
        conn.execute(
            f"""
            WITH late AS (
                INSERT INTO refold.events (txid, position, event_id, user_id, action, ts, metadata)
                SELECT e.txid, nextval('refold.events_position'), e.event_id, e.user_id, e.action, e.ts, e.metadata
                FROM ({events}) AS e (txid, event_id, user_id, action, ts, metadata)
                RETURNING *
            )
            INSERT INTO refold.event_ids (event_id, digest, position)
            SELECT event_id, refold.digest(user_id, action, ts, metadata, version), position FROM late
            """.encode()
        )
