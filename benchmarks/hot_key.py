"""A user with half of all events: what a page with one more of theirs costs, and what all others pay for that."""

from __future__ import annotations

from functools import partial
from statistics import median

import psycopg

from benchmarks.dataset import START, STEP
from benchmarks.report import Figure
from benchmarks.server import Server
from benchmarks.server_time import ServerTime, timed_worker
from benchmarks.workbench import Workbench
from refold.engine.apply.page import apply_next_page
from refold.store.builds.compiled import CompiledBuild

PAGE = 5_000
ROUNDS = 7
WARM_UP = 6
"""After five executions psycopg has prepared a statement, and the plan is the one that stays."""
LIMIT_MS = 5.0
KINDS = {"funnel": ("levels", LIMIT_MS), "recompute": ("bought", None)}

# Views, and now and then something in the cart: a bot never buys, so its funnel is never over.
_HOT = """
INSERT INTO refold.events (event_id, user_id, action, ts)
SELECT 'hot-' || n, 'anonymous', CASE mod(n, 9) WHEN 5 THEN 'cart' ELSE 'view' END, %s::timestamptz + n * %s::interval
FROM generate_series(%s::bigint, %s::bigint) AS n
"""


def measure(server: Server, events: int) -> list[Figure]:
    """Half of the events are one user's; pages of one event of theirs, of one of somebody else's, and of thousands."""
    half = events // 2
    page = min(PAGE, max(1, half // 20))
    calls = WARM_UP + ROUNDS
    with server.database("hot_key") as url:
        bench = Workbench(url, half + calls * (1 + page) * len(KINDS))
        bench.fill(half)
        _visit(bench, 0, half)
        bench.hand.execute("VACUUM ANALYZE refold.events")
        bench.deploy(*(projection for projection, _ in KINDS.values()))
        visits = half
        figures = []
        conn, time = timed_worker(url)
        with conn:
            for upkeep, (projection, limit) in KINDS.items():
                compiled = bench.compiled(projection)
                apply_next_page(conn, compiled, events)
                for _ in range(calls):
                    visits += 1
                    _visit(bench, visits, visits)
                    time.measure(partial(_turn, conn, compiled))
                figures.append(_figure(time, f"{upkeep}: a page of 1 of their events, {half:,} before", limit))
                for of, many in (("1 event of another user", 1), (f"{page:,} events of others", page)):
                    for _ in range(calls):
                        bench.fill(bench.filled + many, rest=False)
                        time.measure(partial(_turn, conn, compiled))
                    figures.append(_figure(time, f"{upkeep}: a page of {of}"))
        bench.close()
    return figures


def _turn(conn: psycopg.Connection, compiled: CompiledBuild, _: int) -> object:
    return apply_next_page(conn, compiled, PAGE * 2)


def _visit(bench: Workbench, first: int, last: int) -> None:
    bench.hand.execute("SELECT refold.ensure_segments(%s)", (last - first + 1,))
    bench.hand.execute(_HOT, (START, STEP, first, last))


def _figure(time: ServerTime, what: str, at_most: float | None = None) -> Figure:
    calls = time.calls[WARM_UP:]
    time.calls = []
    return Figure(
        "hot_key",
        what,
        median(server for server, _ in calls),
        "ms",
        at_most=at_most,
        note=f"on the server; at worst {max(server for server, _ in calls):.1f} ms",
    )
