"""Freshness: from an event's commit to the moment at which a reader sees it in a metric.

Producers append single events at a steady rate and note when each commit returned. A probe reads the total that
a metric shows, every other millisecond. The k-th commit became visible when the total first reached k.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path

import psycopg

from benchmarks.report import Figure
from benchmarks.server import Server
from refold.engine.deployment.deploy import deploy
from refold.model.projection.definition import load_directory
from refold.postgres.connect import connect
from refold.store.schema.resources import projections_dir

RATE = 500
"""Appends a second, all producers together."""
PRODUCERS = 4
SECONDS = 10.0
WARM_UP = 1.0
"""Seconds at the start that do not count."""
PROBE = 0.002
"""Seconds between two looks of the probe: what it adds to every figure, at most."""
BARE_POLL = 0.005

METRICS = {
    "on_log": "SELECT 'all' AS scope, count(*) AS events FROM events GROUP BY scope",
    "behind_transform": "SELECT 'all' AS scope, count(*) AS events FROM enriched_events GROUP BY scope",
}


def measure(server: Server, events: int) -> list[Figure]:
    """A projection on the log and one behind the Python transform, kept by one and two workers; and a bare loop."""
    seconds = SECONDS if events >= 1_000_000 else 2.5
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(projections_dir() / "enriched_events.py", folder)
        for metric, query in METRICS.items():
            (folder / f"{metric}.sql").write_text(query + "\n", encoding="utf-8")
        bare = percentiles(_bare(server, seconds))
        for processes in (1, 2):
            for metric, goal in (("on_log", 25.0), ("behind_transform", 60.0)):
                with server.database("freshness") as url:
                    p50, p95, p99 = percentiles(_kept(url, folder, metric, processes, seconds))
                where = "on the log" if metric == "on_log" else "behind the Python transform"
                figures.append(
                    Figure(
                        "freshness",
                        f"p99 {where}, {processes} worker{'s' if processes > 1 else ''}, {RATE} appends/s",
                        p99,
                        "ms",
                        baseline=bare[2],
                        at_most=goal,
                        note=f"p50 {p50:.1f}, p95 {p95:.1f} ms; a bare loop: p50 {bare[0]:.1f}, p95 {bare[1]:.1f} ms",
                    )
                )
    return figures


def _kept(url: str, folder: Path, metric: str, processes: int, seconds: float) -> list[float]:
    """Delays in ms of a metric that workers keep."""
    with connect(url, "refold_worker", autocommit=True) as conn:
        deploy(conn, folder, load_directory(folder), lambda progress: None)
    with refold_workers(url, folder, processes):
        return delays_of(url, f"SELECT coalesce(max(events), 0) FROM metrics.{metric}", seconds)


def _bare(server: Server, seconds: float) -> list[float]:
    """Delays in ms of the simplest thing that is right: poll, count everything, commit.

    One that remembers the last position loses events within seconds, as soon as two producers overlap.
    """
    with server.database("bare") as url:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("CREATE TABLE bare (scope text PRIMARY KEY, events bigint)")
            conn.execute("INSERT INTO bare VALUES ('all', 0)")
        context = multiprocessing.get_context("spawn")
        loop = context.Process(target=_bare_loop, args=(url,), daemon=True)
        loop.start()
        try:
            return delays_of(url, "SELECT events FROM bare", seconds)
        finally:
            loop.terminate()
            loop.join()


def _bare_loop(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("SET synchronous_commit = off")
        while True:
            conn.execute(
                "UPDATE bare SET events = n FROM (SELECT count(*) AS n FROM refold.events) AS found WHERE n > events"
            )
            time.sleep(BARE_POLL)


@contextmanager
def refold_workers(url: str, folder: Path, processes: int) -> Iterator[None]:
    command = [
        sys.executable,
        "-m",
        "refold",
        "worker",
        "--processes",
        str(processes),
        "--projections",
        os.fspath(folder),
    ]
    running = subprocess.Popen(
        command, env={**os.environ, "REFOLD_DATABASE_URL": url}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        running.terminate()
        running.wait()


def delays_of(url: str, query: str, seconds: float, rate: int = RATE) -> list[float]:
    """Appends at the steady rate, probes, and returns the delay of every counted event in ms."""
    return commits_and_looks(url, query, seconds, rate).delays()


@dataclass(frozen=True, slots=True)
class Run:
    """What happened at a steady rate; times are of the monotonic clock.

    Args:
        start: when the first event was due, seconds.
        commits: when each commit returned, seconds, in order.
        looks: when the metric was seen to show more, and the total it showed.
    """

    start: float
    commits: list[float]
    looks: list[tuple[float, int]]

    def delays(self, looks: Iterable[tuple[float, int]] | None = None) -> list[float]:
        """The delay of every counted event in ms.

        Args:
            looks: of somebody else than the probe.
        """
        found: list[float] = []
        rising = iter(self.looks if looks is None else looks)
        now, total = next(rising)
        for rank, moment in enumerate(self.commits, start=1):
            while total < rank:
                now, total = next(rising)
            if moment >= self.start + WARM_UP:
                found.append(max(0.0, now - moment) * 1000)
        return found


def commits_and_looks(
    url: str,
    query: str,
    seconds: float,
    rate: int = RATE,
    *,
    prefix: str = "",
    meanwhile: Callable[[], None] | None = None,
) -> Run:
    """Appends at a steady rate, and looks at a metric.

    Args:
        url: of the database.
        query: gives the total of the metric, which is zero at first.
        seconds: how long.
        rate: appends a second, all producers together.
        prefix: of the events' ids, which must be new.
        meanwhile: what happens beside it, from when the warm-up is over.
    """
    context = multiprocessing.get_context("spawn")
    reports: Queue[list[float]] = context.Queue()
    each = int(rate * seconds) // PRODUCERS
    with psycopg.connect(url, autocommit=True) as conn:

        def visible() -> int:
            row = conn.execute(query.encode(), prepare=True).fetchone()
            assert row is not None
            return int(row[0])

        # Whoever keeps the metric has to be up before the clock runs.
        _append(conn, f"{prefix}warm-up")
        _until(lambda: visible() == 1, 60)
        start = time.monotonic() + 2.0
        producers = [
            context.Process(target=_produce, args=(url, at, start, each, rate, reports, prefix))
            for at in range(PRODUCERS)
        ]
        for producer in producers:
            producer.start()
        beside = None if meanwhile is None else threading.Timer(start + WARM_UP - time.monotonic(), meanwhile)
        if beside is not None:
            beside.start()
        seen: list[tuple[float, int]] = []

        def all_visible() -> bool:
            total = visible() - 1
            if total > (seen[-1][1] if seen else 0):
                seen.append((time.monotonic(), total))
            return total == each * PRODUCERS

        _until(all_visible, seconds + 60)
    commits = sorted(moment for _ in producers for moment in reports.get())
    for producer in producers:
        producer.join()
    if beside is not None:
        beside.join()
    return Run(start, commits, seen)


def _produce(
    url: str, number: int, start: float, count: int, rate: int, reports: Queue[list[float]], prefix: str
) -> None:
    """One producer: its share of the rate, evenly spread."""
    commits: list[float] = []
    with psycopg.connect(url, autocommit=True) as conn:
        for at in range(count):
            due = start + (at + number / PRODUCERS) * PRODUCERS / rate
            time.sleep(max(0.0, due - time.monotonic()))
            _append(conn, f"{prefix}{number}-{at}")
            commits.append(time.monotonic())
    reports.put(commits)


def _append(conn: psycopg.Connection, name: str) -> None:
    event = {"id": name, "user_id": f"user-{hash(name) % 997}", "action": "view", "ts": 1767225600000}
    conn.execute("SELECT answer FROM refold.append(%s::jsonb)", (json.dumps([event]),))


def _until(condition: Callable[[], bool], seconds: float) -> None:
    """Looks every `PROBE` seconds until it is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not all events are visible after {seconds:.0f} s")
        time.sleep(PROBE)


def percentiles(delays: list[float]) -> tuple[float, float, float]:
    ordered = sorted(delays)
    return tuple(ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0.5, 0.95, 0.99))  # type: ignore[return-value]
