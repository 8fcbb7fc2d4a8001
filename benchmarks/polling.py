"""Looking for work in a large log, and a small page of it, also beside a transaction that stays open."""

from __future__ import annotations

from statistics import median

import psycopg

from benchmarks.report import Figure
from benchmarks.server import Server
from benchmarks.server_time import ServerTime, timed_worker
from benchmarks.workbench import Workbench
from refold.engine.apply.page import apply_next_page
from refold.service.worker.pending import builds_with_work

SEGMENTS = 50
PAGE = 500
ROUNDS = 25
WARM_UP = 7
"""After five executions psycopg has prepared a statement, and the plan is the one that stays."""
LIMIT_MS = 3.0
PROJECTION = "counts"


def measure(server: Server, events: int) -> list[Figure]:
    """Polls and pages on twice as many events as the other benchmarks have."""
    total = events * 2
    with server.database("polling") as url:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("UPDATE refold.settings SET segment_size = %s", (-(-total // SEGMENTS),))
        bench = Workbench(url, total + (ROUNDS + WARM_UP) * 2 * PAGE)
        bench.fill(total)
        bench.deploy(PROJECTION)
        with psycopg.connect(url) as writer:
            figures = _measure_all(bench, "")
            # Its event has a place in the log since before everything that follows, and is not visible yet.
            writer.execute("INSERT INTO refold.events (event_id, action, ts) VALUES ('open', 'view', now())")
            figures += _measure_all(bench, ", beside a long transaction")
        bench.close()
    return figures


def _measure_all(bench: Workbench, where: str) -> list[Figure]:
    conn, time = timed_worker(bench.url)
    compiled = bench.compiled(PROJECTION)
    with conn:
        for at in range(WARM_UP + ROUNDS):
            time.measure(lambda at: builds_with_work(conn), at)
        idle = _figure(time, f"an idle poll{where}")
        for at in range(WARM_UP + ROUNDS):
            bench.fill(bench.filled + PAGE, rest=False)
            time.measure(lambda at: apply_next_page(conn, compiled, PAGE * 2), at)
        return [idle, _figure(time, f"a page of {PAGE}{where}")]


def _figure(time: ServerTime, what: str) -> Figure:
    calls = time.calls[WARM_UP:]
    time.calls = []
    return Figure(
        "polling",
        what,
        median(server for server, _ in calls),
        "ms",
        at_most=LIMIT_MS,
        note=f"on the server; at worst {max(server for server, _ in calls):.1f} ms,"
        f" for the client {median(client for _, client in calls):.1f} ms",
    )
