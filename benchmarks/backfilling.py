"""A backfill from files: how fresh live metrics stay beside it, and what staging, check and run cost.

Live events are appended at a steady rate, once alone and once beside a backfill, and the metric counts only them. Rate
and check are compared with what does the same without any promise: `refold ingest` of the same file, and COPY.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from benchmarks import dataset
from benchmarks.freshness import delays_of, percentiles, refold_workers
from benchmarks.report import Figure
from benchmarks.server import Server
from refold.engine.deployment.deploy import deploy
from refold.inspect.backfill.check import check
from refold.model.event.exact_json import metadata_json
from refold.model.projection.definition import load_directory
from refold.postgres.connect import connect
from refold.store import file_backfills as store
from refold.store.builds.compiled import Compiler

RATE = 200
"""Live appends a second."""
LIVE = "live_events"
METRICS = {
    LIVE: "SELECT 'all' AS scope, count(*) AS events FROM events WHERE NOT metadata ? 'page' GROUP BY scope",
    "by_day": "SELECT (ts AT TIME ZONE 'UTC')::date AS day, action, count(*) AS events,"
    " count(DISTINCT user_id) AS users FROM events GROUP BY day, action",
}
TIMES = 2.0
"""How much later events may be beside a backfill, and how much longer a check may take than COPY."""
OF_INGEST = 0.7


def measure(server: Server, events: int) -> list[Figure]:
    """Freshness of a live metric, the rate of a run, and the time of a check."""
    size = max(20_000, events // 5)
    with tempfile.TemporaryDirectory(prefix="refold-backfilling-") as name:
        folder = Path(name)
        for metric, query in METRICS.items():
            (folder / f"{metric}.sql").write_text(query + "\n", encoding="utf-8")
        return [
            _freshness(server, folder, 10.0 if events >= 1_000_000 else 3.0, events),
            _rate(server, folder, size),
            _check(server, folder, size),
        ]


def _freshness(server: Server, folder: Path, seconds: float, events: int) -> Figure:
    file = _write(folder / "history.jsonl", 0, events)
    look = f"SELECT coalesce(max(events), 0) FROM metrics.{LIVE}"
    with server.database("backfilling") as url:
        _deploy(url, folder)
        with refold_workers(url, folder, 1):
            alone = percentiles(delays_of(url, look, seconds, RATE))
    with server.database("backfilling") as url:
        _deploy(url, folder)
        _refold(url, "backfill", "stage", "history", str(file))
        limit = 2 * alone[2] / 1000
        with refold_workers(url, folder, 1), _running(url, folder, limit):
            beside = percentiles(delays_of(url, look, seconds, RATE))
            with psycopg.connect(url) as conn:
                now = store.known(conn, "history", over=True)
    return Figure(
        "backfilling",
        f"p99 freshness of a metric beside a backfill, {RATE} live appends/s",
        beside[2] / alone[2],
        "× without",
        at_most=TIMES,
        note=f"p50 {beside[0]:.1f}, p99 {beside[2]:.1f} ms; without: p50 {alone[0]:.1f}, p99 {alone[2]:.1f} ms; "
        f"{now.mark:,} records came meanwhile",
    )


@contextmanager
def _running(url: str, folder: Path, limit_s: float) -> Iterator[None]:
    """A backfill that runs while the block does."""
    command = ["backfill", "run", "history", "--projections", str(folder), "--freshness", f"{max(limit_s, 0.01):.3f}s"]
    running = subprocess.Popen(
        [sys.executable, "-m", "refold", *command, "--database-url", url],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        running.kill()
        running.wait()


def _rate(server: Server, folder: Path, size: int) -> Figure:
    file = _write(folder / "records.jsonl", 0, size)
    with server.database("backfilling") as url:
        ingest = _timed(url, "ingest", str(file))
    with server.database("backfilling") as url:
        _refold(url, "backfill", "stage", "history", str(file))
        _refold(url, "backfill", "check", "history", "--projections", str(folder))
        run = _timed(url, "backfill", "run", "history")
    return Figure(
        "backfilling",
        f"refold backfill run of {size:,} records, against refold ingest of their file",
        size / run,
        "records/s",
        baseline=size / ingest,
        ratio=ingest / run,
        at_least=OF_INGEST,
    )


def _check(server: Server, folder: Path, size: int) -> Figure:
    """The check of records that are half as many as the log has, on days that it has."""
    file = _write(folder / "half.jsonl", 2 * size, 3 * size)
    with server.database("backfilling") as url, psycopg.connect(url, autocommit=True) as conn:
        _refold(url, "ingest", str(_write(folder / "log.jsonl", 0, 2 * size)))
        _deploy(url, folder)
        _refold(url, "backfill", "stage", "history", str(file))
        conn.execute("CREATE TABLE plain (event_id text, user_id text, action text, ts timestamptz, metadata jsonb)")
        lines = "".join(
            f"{e.id}\t{e.user_id}\t{e.action}\t{e.ts.isoformat()}\t{metadata_json(e.metadata)}\n"
            for e in dataset.events(2 * size, 3 * size)
        )
        began = time.monotonic()
        with conn.cursor() as cursor, cursor.copy("COPY plain FROM STDIN") as copy:
            copy.write(lines)
        copied = time.monotonic() - began
        with connect(url, "refold_worker", autocommit=True) as worker:
            began = time.monotonic()
            found = check(worker, Compiler(folder), store.known(worker, "history"))
            checked = time.monotonic() - began
        assert found.answers.new == size
        assert all(one.told for one in found.effects)
    return Figure(
        "backfilling",
        f"refold backfill check of {size:,} records and {len(METRICS)} metrics, against COPY of them",
        checked / copied,
        "× COPY",
        at_most=TIMES,
        note=f"{checked:.2f} s, COPY {copied:.2f} s",
    )


def _deploy(url: str, folder: Path) -> None:
    with connect(url, "refold_worker", autocommit=True) as conn:
        deploy(conn, folder, load_directory(folder), lambda progress: None)


def _write(path: Path, start: int, stop: int) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for e in dataset.events(start, stop):
            file.write(
                f'{{"id":"{e.id}","user_id":"{e.user_id}","action":"{e.action}","ts":"{e.ts.isoformat()}",'
                f'"metadata":{metadata_json(e.metadata)}}}\n'
            )
    return path


def _timed(url: str, *arguments: str) -> float:
    began = time.monotonic()
    _refold(url, *arguments)
    return time.monotonic() - began


def _refold(url: str, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "refold", *arguments, "--database-url", url], check=True, stdout=subprocess.DEVNULL
    )
