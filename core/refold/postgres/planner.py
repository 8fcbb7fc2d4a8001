"""Planner settings for transactions that differ from a worker's pages."""

from __future__ import annotations

import psycopg


def plan_freely(conn: psycopg.Connection) -> None:
    """Allow all kinds of plans in this transaction, independent of the session's settings."""
    conn.execute(
        "SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL enable_seqscan = on;"
        "SET LOCAL enable_bitmapscan = on; SET LOCAL enable_sort = on"
    )


def plan_by_index(conn: psycopg.Connection) -> None:
    """Make this transaction use indexes, independent of the planner's estimates of table sizes."""
    conn.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL jit = off")
