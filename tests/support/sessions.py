"""What sessions do on a test's own database. A server that is shared has those of other tests too."""

from __future__ import annotations

from typing import Any

import psycopg

_HERE = "datname = current_database()"

SLEEPERS = """
    SELECT count(*) FROM pg_locks
    WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted
      AND (classid::bigint << 32) | objid::bigint = refold.sleepers_lock()
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def pids(conn: psycopg.Connection[Any], application_name: str, *, waiting: bool = False) -> list[int]:
    """The processes of the sessions under a name; with `waiting`, of those that wait for a lock."""
    condition = "AND wait_event_type = 'Lock'" if waiting else ""
    rows = conn.execute(
        f"SELECT pid FROM pg_stat_activity WHERE {_HERE} AND application_name = %s {condition}".encode(),
        (application_name,),
    ).fetchall()
    return [int(pid) for (pid,) in rows]


def somebody_waits(conn: psycopg.Connection[Any]) -> bool:
    """Whether any session waits for a lock."""
    return bool(conn.execute(f"SELECT FROM pg_stat_activity WHERE {_HERE} AND wait_event_type = 'Lock'").rowcount)


def terminate(conn: psycopg.Connection[Any], application_name: str) -> int:
    """Ends the sessions under a name, waits until they are gone, and says how many they were."""
    return conn.execute(
        f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE {_HERE} AND application_name = %s",
        (application_name,),
    ).rowcount


def advisory_locks(conn: psycopg.Connection[Any]) -> int:
    """How many advisory locks are held."""
    row = conn.execute(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    ).fetchone()
    assert row is not None
    return int(row[0])
