"""What producers and readers feel of a purge: how late appends are, and freshness, while segments leave the log.

Once with nobody else, and once beside readers that hold the log for a second each, as audits and analysts do: the purge
asks for its lock behind them, and producers queue behind the purge.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from benchmarks.archiving import until_sealed
from benchmarks.freshness import METRICS, WARM_UP, Run, commits_and_looks, percentiles, refold_workers
from benchmarks.report import Figure
from benchmarks.server import Server
from benchmarks.workbench import PROJECTIONS, Workbench
from refold.engine.archive import ownership, write
from refold.engine.archive.object_store import open_store
from refold.engine.deployment.deploy import deploy
from refold.engine.purge.purge import Purged, purge
from refold.model.projection.definition import load_directory
from refold.model.stream.slices import POSITION_BITS
from refold.postgres.connect import connect
from refold.store.builds.compiled import Compiler
from refold.store.totals import count_events

RATE = 200
"""Appends a second, of four producers."""
SECONDS = 20.0
"""For which they go on; the purge takes less."""
KEPT = ("counts", "visitors", "amounts")
"""Metrics beside the one that is watched: merged, with a set, and with a row for each event."""

_HALF = "SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY sealed_at) FROM refold.sealed_slices"


def measure(server: Server, events: int) -> list[Figure]:
    """Single appends at a steady rate beside a worker, and the same while all archived segments are purged."""
    segments = max(events >> POSITION_BITS, 2)
    with TemporaryDirectory() as name, server.database("purging") as url:
        folder = Path(name) / "projections"
        folder.mkdir()
        for kept in KEPT:
            shutil.copy(PROJECTIONS / f"{kept}.sql", folder)
        (folder / "on_log.sql").write_text(METRICS["on_log"] + "\n", encoding="utf-8")
        total = segments << POSITION_BITS
        bench = Workbench(url, total)
        bench.hand.execute("UPDATE refold.settings SET segment_size = %s", (1 << POSITION_BITS,))
        for (segment,) in bench.hand.execute("SELECT segment::text FROM refold.segments").fetchall():
            bench.hand.execute(f"DROP TABLE {segment}".encode())
        bench.hand.execute("SELECT refold.ensure_segments()")
        bench.fill(total)
        until_sealed(bench.worker, segments)
        deploy(bench.worker, folder, load_directory(folder), lambda progress: None)
        location = str(Path(name) / "archive")
        ownership.claim(bench.worker, open_store(location), location)
        write.run(bench.worker, by="benchmark", older_than_s=0)
        count_events(bench.worker)
        query = "SELECT coalesce(max(events), 0) - {} FROM metrics.on_log"
        runs: list[Run] = []
        gone: list[Purged] = []

        def run(prefix: str, meanwhile: Callable[[], None] | None = None) -> None:
            (shown,) = bench.hand.execute("SELECT max(events) FROM metrics.on_log").fetchone() or (0,)
            runs.append(commits_and_looks(url, query.format(shown), SECONDS, RATE, prefix=prefix, meanwhile=meanwhile))

        half = bench.hand.execute(_HALF).fetchone()
        assert half is not None
        with refold_workers(url, folder, 1):
            run("quiet-")
            run("alone-", lambda: gone.append(_purge(url, folder, half[0])))
            with _readers(url):
                run("readers-", lambda: gone.append(_purge(url, folder, datetime.now(UTC))))
        bench.close()
    (quiet, *beside) = runs
    figures: list[Figure] = []
    for one, purged, where in zip(beside, gone, ("", ", beside readers that hold the log for a second"), strict=True):
        left = len(purged.segments)
        assert left > 0, purged.stopped_at
        was, now = percentiles(quiet.delays())[2], percentiles(one.delays())[2]
        figures += [
            Figure("purging", f"the latest of {len(one.commits):,} appends while {left} segments are purged{where}",
                   _latest(one), "ms", _latest(quiet), at_most=200.0),
            Figure("purging", f"freshness p99 meanwhile{where}", now, "ms", was, was / now, at_least=0.5),
        ]  # fmt: skip
    return figures


@contextmanager
def _readers(url: str) -> Iterator[None]:
    """One reader after another, each with the log for a second, half a second apart."""
    over = threading.Event()

    def read() -> None:
        with psycopg.connect(url, autocommit=True) as conn:
            while not over.is_set():
                with conn.transaction():
                    conn.execute("SELECT FROM refold.events LIMIT 1")
                    over.wait(1.0)
                over.wait(0.5)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _purge(url: str, folder: Path, limit: datetime) -> Purged:
    with connect(url, "refold_worker", autocommit=True) as conn:
        return purge(conn, Compiler(folder), limit=limit)


def _latest(run: Run) -> float:
    """Return by how much the latest append was behind its moment, in ms: whoever waits for a lock is late.

    Those of the warm-up do not count: their processes are still being started.
    """
    first = int(WARM_UP * RATE)
    return max((commit - run.start - number / RATE) * 1000 for number, commit in enumerate(run.commits[first:], first))
