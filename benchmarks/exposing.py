"""Exposure: a query of a metric with a canary, against the same query of a plain view of the same table."""

from __future__ import annotations

from datetime import timedelta

from benchmarks.report import Figure
from benchmarks.rounds import alternate
from benchmarks.server import Server
from benchmarks.workbench import PROJECTIONS, Workbench
from refold.engine.canary.canary import start
from refold.engine.deployment.deploy import rebuild
from refold.store.builds.build import live
from refold.store.builds.compiled import Compiler

ROUNDS = 25
TOGETHER = 5
"""Queries of a round."""
GOAL = 0.98


def measure(server: Server, events: int) -> list[Figure]:
    """Sums up a metric with a row for each user, of which a candidate waits that nobody sees yet."""
    with server.database("exposing") as url:
        bench = Workbench(url, events)
        bench.fill(events)
        bench.deploy("levels")
        build = live(bench.worker, "levels")
        assert build is not None
        view = bench.compiled("levels").statements.view
        bench.hand.execute(f"CREATE VIEW plain.levels AS {view}".encode())
        rebuild(bench.worker, PROJECTIONS, ["levels"], lambda progress: None, promote=False)
        start(bench.worker, Compiler(PROJECTIONS), "levels", steps=[0, 100], soak=timedelta(days=1))
        bench.hand.execute("VACUUM ANALYZE")
        bench.hand.execute("SET max_parallel_workers_per_gather = 0")

        def ask(schema: str) -> None:
            for _ in range(TOGETHER):
                bench.hand.execute(f"SELECT count(*), max(user_id) FROM {schema}.levels".encode()).fetchone()

        compared = alternate(ROUNDS, TOGETHER, lambda at: ask("metrics"), lambda at: ask("plain"))
        rows = bench.rows(bench.hand, "plain.levels")
        bench.close()
    return [
        Figure(
            "exposing",
            f"queries over {rows:,} rows of a metric with a canary, against a plain view",
            1000 / compared.measured,
            "ms",
            1000 / compared.baseline,
            compared.ratio,
            at_least=GOAL,
        )
    ]
