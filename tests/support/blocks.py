"""Which blocks a piece of work reads: what may not grow with the log, nor with what others hold open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]

FLUSH = "SELECT pg_stat_force_next_flush()"


def blocks(conn: Connection) -> dict[str, int]:
    """Blocks that everybody has read of each table of refold and pgmq and its indexes, from the cache or not."""
    rows = conn.execute(
        """
        SELECT relname, heap_blks_read + heap_blks_hit + coalesce(idx_blks_read + idx_blks_hit, 0)
        FROM pg_statio_all_tables WHERE schemaname IN ('refold', 'refold_builds', 'pgmq')
        """
    ).fetchall()
    return {name: int(read) for name, read in rows}


def touched(watch: Connection, worker: Connection, work: Callable[[], object]) -> dict[str, int]:
    """Blocks that work over one connection reads, by table, as another connection sees it."""
    worker.execute(FLUSH)
    before = blocks(watch)
    work()
    worker.execute(FLUSH)
    after = blocks(watch)
    return {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
