"""Keeping a metric up to date: a backlog worked off in pages, against the best statement by hand."""

from __future__ import annotations

import psycopg

from benchmarks.by_hand import AMOUNTS, COUNTS, PATHS, VISITORS, ByHand
from benchmarks.report import Figure
from benchmarks.rounds import alternate
from benchmarks.server import Server
from benchmarks.workbench import Workbench
from refold.engine.apply.page import apply_next_page

PAGE = 10_000
KINDS = {
    "merge": ("counts", COUNTS),
    "members": ("visitors", VISITORS),
    "facts": ("amounts", AMOUNTS),
    "recompute": ("paths", PATHS),
}


def measure(server: Server, events: int) -> list[Figure]:
    """Builds each metric over half of the events, then works off the other half."""
    page = min(PAGE, max(1, events // 20))
    half = events // page // 2 * page
    with server.database("applying") as url:
        bench = Workbench(url, events)
        bench.fill(half)
        bench.deploy(*(projection for projection, _ in KINDS.values()))
        bench.fill(half + half)
        bench.hand.execute("CREATE SCHEMA hand")
        figures = [
            _measure_kind(bench, kind, projection, by_hand, half, page) for kind, (projection, by_hand) in KINDS.items()
        ]
        bench.close()
    return figures


def _measure_kind(bench: Workbench, kind: str, projection: str, by_hand: ByHand, half: int, page: int) -> Figure:
    pages = half // page
    together = max(1, pages // 10)
    compiled = bench.compiled(projection)
    with psycopg.ClientCursor(bench.hand) as cursor:
        for statement in by_hand.tables:
            cursor.execute(statement.encode(), {"upto": half})
    bench.hand.execute("VACUUM ANALYZE")

    def product(at: int) -> None:
        for _ in range(together):
            applied = apply_next_page(bench.worker, compiled, page)
            assert applied is not None and applied.events == page, applied

    def baseline(at: int) -> None:
        for number in range(at * together, (at + 1) * together):
            after = half + number * page
            parameters = {"after": after, "upto": after + page}
            bench.hand.execute(by_hand.page.encode(), parameters, prepare=True)

    compared = alternate(pages // together, together * page, product, baseline)
    same = bench.rows(bench.hand, f"hand.{projection}"), bench.rows(bench.hand, f"metrics.{projection}")
    assert same[0] == same[1], (projection, same)
    return Figure(
        "applying",
        f"{kind}: pages of {page:,} to an existing build",
        compared.measured,
        "events/s",
        compared.baseline,
        compared.ratio,
        at_least=0.7,
    )
