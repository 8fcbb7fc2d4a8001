"""While somebody holds an old snapshot nothing can be vacuumed: what pages and looks read must not grow with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from refold.engine.reconcile.audit import quick
from refold.inspect.status import read
from refold.service.worker.pending import builds_with_work
from tests.support.blocks import touched
from tests.support.held_snapshot import UNCHANGED, Connection, changing, held_snapshot

PAGES = 2_000
PROOFS = 500
SPARE = 6
"""So many blocks more may be read after all these pages: an index has a level more."""


@pytest.mark.slow
def test_pages_and_looks_read_no_more_than_at_first(
    database_url: str, connect: Callable[..., Connection], tmp_path: Path
) -> None:
    with changing(database_url, connect, tmp_path) as counts, connect(autocommit=True) as watch:
        worker, compiled = counts.worker, counts.compiled

        def measured(number: int) -> dict[str, dict[str, int]]:
            return {
                "audit": touched(watch, worker, lambda: quick(worker, compiled, proves=True)),
                "page": touched(watch, worker, lambda: counts.page(number)),
                "look": touched(watch, worker, lambda: builds_with_work(worker)),
                "status": touched(watch, worker, lambda: read(worker)),
            }

        for number in range(20):
            counts.page(number)
        with held_snapshot(connect):
            first = measured(20)
            for number in range(21, PAGES):
                counts.page(number)
            for _ in range(PROOFS):
                quick(worker, compiled, proves=True)
            proved = worker.execute("SELECT count(*) FROM refold.proofs").fetchone()
            last = measured(PAGES)
    assert proved is not None and proved[0] > PROOFS
    for what in first:
        for table in ("builds", "cursors", "figures", "checksum_changes", "duties", "latencies", "proofs"):
            if (what, table) == ("audit", "checksum_changes"):
                continue  # It adds them up.
            assert last[what].get(table, 0) <= first[what].get(table, 0) * UNCHANGED + SPARE, (what, table, first, last)
