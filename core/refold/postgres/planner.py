"""How a session plans: a worker's is set up for pages, and what reads much must not be planned like one."""

from __future__ import annotations

import psycopg


def plan_freely(conn: psycopg.Connection) -> None:
    """Lets this transaction plan as its statements need it, whatever the session is set up for."""
    conn.execute(
        "SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL enable_seqscan = on;"
        "SET LOCAL enable_bitmapscan = on; SET LOCAL enable_sort = on"
    )


def plan_by_index(conn: psycopg.Connection) -> None:
    """Lets this transaction look things up by index, whatever the planner believes about how little a table holds."""
    conn.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL jit = off")
