"""While somebody holds an old snapshot nothing can be vacuumed: what pages and looks read must not grow with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.apply.page import apply_next_page
from refold.engine.deployment.deploy import deploy
from refold.inspect.status import read
from refold.model.projection.definition import load_directory
from refold.postgres import session
from refold.postgres.connect import connect as connect_as
from refold.service.worker.pending import builds_with_work
from refold.store.builds.build import live
from refold.store.builds.compiled import Compiler
from tests.support.making import MONDAY_MS

Connection = psycopg.Connection[Any]

PAGES = 2_000
UNCHANGED = 1.5
SPARE = 6
"""So many times what was read at first, and so many blocks, may be read after all these pages: an index has a level
more."""


def blocks(conn: Connection) -> dict[str, int]:
    """Blocks that everybody has read of each of refold's tables and their indexes, from the cache or not."""
    rows = conn.execute(
        """
        SELECT relname, heap_blks_read + heap_blks_hit + coalesce(idx_blks_read + idx_blks_hit, 0)
        FROM pg_statio_all_tables WHERE schemaname IN ('refold', 'refold_builds')
        """
    ).fetchall()
    return {name: int(read) for name, read in rows}


@pytest.mark.slow
def test_pages_and_looks_read_no_more_than_at_first(
    database_url: str, connect: Callable[..., Connection], tmp_path: Path
) -> None:
    (tmp_path / "counts.sql").write_text("SELECT action, count(*) AS events FROM events GROUP BY action")
    with (
        connect_as(database_url, "refold_worker", autocommit=True, settings=session.PAGES) as worker,
        connect(autocommit=True) as producer,
        connect(autocommit=True) as watch,
    ):
        deploy(worker, tmp_path, load_directory(tmp_path), lambda progress: None)
        build = live(worker, "counts")
        assert build is not None
        compiled = Compiler(None).of(worker, build)

        def page(number: int) -> None:
            append(producer, [{"id": str(number), "action": "view", "ts": MONDAY_MS}])
            applied = apply_next_page(worker, compiled, 100)
            assert applied is not None and applied.events == 1

        def touched(work: Callable[[], object]) -> dict[str, int]:
            flush = "SELECT pg_stat_force_next_flush()"
            worker.execute(flush)
            before = blocks(watch)
            work()
            worker.execute(flush)
            after = blocks(watch)
            return {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}

        def measured(number: int) -> dict[str, dict[str, int]]:
            return {
                "page": touched(lambda: page(number)),
                "look": touched(lambda: builds_with_work(worker)),
                "status": touched(lambda: read(worker)),
            }

        for number in range(20):
            page(number)
        holder = connect()
        holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        holder.execute("SELECT count(*) FROM refold.events")
        first = measured(20)
        for number in range(21, PAGES):
            page(number)
        last = measured(PAGES)
        holder.rollback()
    for what in first:
        for table in ("builds", "cursors", "figures", "checksum_changes", "duties", "latencies"):
            assert last[what].get(table, 0) <= first[what].get(table, 0) * UNCHANGED + SPARE, (what, table, first, last)
