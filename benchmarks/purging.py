"""What producers and readers feel of a purge: how late appends are, and freshness, while segments leave the log."""

from __future__ import annotations

import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.archiving import until_sealed
from benchmarks.freshness import METRICS, Run, commits_and_looks, percentiles, refold_workers
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
        (shown,) = bench.hand.execute("SELECT max(events) FROM metrics.on_log").fetchone() or (0,)
        with refold_workers(url, folder, 1):
            query = "SELECT coalesce(max(events), 0) - {} FROM metrics.on_log"
            quiet = commits_and_looks(url, query.format(shown), SECONDS, RATE, prefix="quiet-")
            (shown,) = bench.hand.execute("SELECT max(events) FROM metrics.on_log").fetchone() or (0,)
            done: list[Purged] = []
            thread = threading.Thread(target=lambda: done.append(_purge(url, folder)))
            thread.start()
            beside = commits_and_looks(url, query.format(shown), SECONDS, RATE, prefix="beside-")
            thread.join()
        bench.close()
    gone = len(done[0].segments)
    assert gone > 0, done[0].stopped_at
    was, now = percentiles(quiet.delays())[2], percentiles(beside.delays())[2]
    return [
        Figure("purging", f"the latest of {len(beside.commits):,} appends while {gone} segments were purged",
               _latest(beside), "ms", _latest(quiet), at_most=200.0),
        Figure("purging", "freshness p99 meanwhile", now, "ms", was, was / now, at_least=0.5),
    ]  # fmt: skip


def _purge(url: str, folder: Path) -> Purged:
    with connect(url, "refold_worker", autocommit=True) as conn:
        return purge(conn, Compiler(folder), limit=datetime.now(UTC))


def _latest(run: Run) -> float:
    """Return by how much the latest append was behind its moment, in ms: whoever waits for a lock is late."""
    return max((commit - run.start - number / RATE) * 1000 for number, commit in enumerate(run.commits))
