"""Differences of two builds: equal builds by their checksums, against a full join of their tables."""

from __future__ import annotations

from benchmarks.report import Figure
from benchmarks.rounds import alternate
from benchmarks.server import Server
from benchmarks.workbench import PROJECTIONS, Workbench
from refold.engine.deployment.deploy import rebuild
from refold.engine.diff.diff import differing
from refold.store.builds.compiled import Compiler

ROUNDS = 5
GOAL = 20


def measure(server: Server, events: int) -> list[Figure]:
    """Compares a metric with a row for each event, and one with a row for each user, with an unchanged rebuild."""
    with server.database("diffing") as url:
        bench = Workbench(url, events)
        bench.fill(events)
        names = ("bought", "levels")
        bench.deploy(*names)
        rebuild(bench.worker, PROJECTIONS, names, lambda progress: None, promote=False)
        bench.hand.execute("VACUUM ANALYZE")
        figures = [_equal(bench, name) for name in names]
        bench.close()
    return figures


def _equal(bench: Workbench, name: str) -> Figure:
    compiler = Compiler(PROJECTIONS)

    def compare(*, skip: bool) -> None:
        with differing(bench.worker, compiler, name) as pair:
            assert pair.diff(0, skip=skip).same

    compared = alternate(ROUNDS, 1.0, lambda at: compare(skip=True), lambda at: compare(skip=False))
    rows = bench.rows(bench.hand, f"metrics.{name}")
    return Figure(
        "diffing",
        f"{name}: two equal builds of {rows:,} rows, against a full join of them",
        1000 / compared.measured,
        "ms",
        1000 / compared.baseline,
        compared.ratio,
        at_least=GOAL,
    )
