"""What comes in bulk: lines over HTTP, the memory that they take, and what they cost those who wait for fresh metrics.

The server is a process of `refold serve` with one process for requests.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import psutil

from benchmarks.dataset import BLOCK, block
from benchmarks.freshness import delays_of, percentiles, refold_workers
from benchmarks.report import Figure
from benchmarks.server import Server
from benchmarks.serving import free_port, wait_for
from refold import Log
from refold.engine.deployment.deploy import deploy
from refold.model.projection.definition import load_directory
from refold.postgres.connect import connect, connection
from refold.store.tokens import create

ROUNDS = 3
BATCH = 20_000
"""Events in a batch of `Log.append`."""
BODY = 64 * 2**20
"""Bytes of the body whose memory is measured."""
IDLE = 1000
"""Connections that send nothing."""
LIVE = "SELECT 'all' AS scope, count(*) AS events FROM events WHERE action = 'view' GROUP BY scope"
"""What the bulk has no part in."""
SECONDS = 10.0


def measure(server: Server, events: int) -> list[Figure]:
    """Lines over HTTP against `Log.append`, memory, and freshness beside a file."""
    blocks = max(1, events // 5 // BLOCK)
    return [*_lines(server, blocks), *_memory(server), _freshness(server, SECONDS if events >= 1_000_000 else 2.5)]


def _lines(server: Server, blocks: int) -> Iterator[Figure]:
    events = [event for at in range(blocks) for event in block(at)]
    dicts = [{**event.model_dump(), "ts": event.ts.isoformat()} for event in events]
    body = "".join(json.dumps(one) + "\n" for one in dicts).encode()
    rates: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        with server.database("lines") as url, _door(url) as (port, token, _):
            started = time.perf_counter()
            _post(port, token, [body])
            by_http = len(events) / (time.perf_counter() - started)
        with server.database("lines") as url, Log(url) as log:
            started = time.perf_counter()
            for start in range(0, len(dicts), BATCH):
                log.append(dicts[start : start + BATCH])
            rates.append((by_http, len(events) / (time.perf_counter() - started)))
    yield Figure(
        "streaming",
        "NDJSON over one connection, against Log.append in batches",
        median(own for own, _ in rates),
        "events/s",
        median(its for _, its in rates),
        median(own / its for own, its in rates),
        at_least=0.7,
    )


def _memory(server: Server) -> Iterator[Figure]:
    line = json.dumps({"id": "%d", "user_id": "u", "action": "bulk", "ts": 1767225600000, "metadata": {"a": "x" * 150}})
    with server.database("memory") as url, _door(url) as (port, token, process):
        _post(port, token, [(line % 0 + "\n").encode()])
        before = _resident(process)
        peak = _Peak(process)
        with peak:
            _post(port, token, ((line % n + "\n").encode() for n in range(1, BODY // len(line))))
        yield Figure(
            "streaming", "memory for 64 MiB of NDJSON, more than after start", peak.mib - before, "MiB", at_most=48
        )
    with server.database("memory") as url, _door(url) as (port, token, process), ExitStack() as stack:
        _post(port, token, [(line % 0 + "\n").encode()])
        before = _resident(process)
        for _ in range(IDLE):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        time.sleep(1)
        used = _resident(process) - before
        yield Figure(
            "streaming", f"memory for {IDLE:,} idle connections, more than after start", used, "MiB", at_most=64
        )


def _freshness(server: Server, seconds: float) -> Figure:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "projections"
        folder.mkdir()
        (folder / "on_log.sql").write_text(LIVE + "\n", encoding="utf-8")
        file = Path(name) / "bulk.jsonl"
        with file.open("w", encoding="utf-8") as lines:
            for n in range(2_000_000 if seconds == SECONDS else 600_000):
                lines.write(f'{{"id":"b{n}","user_id":"u{n % 5000}","action":"bulk","ts":1767225600000}}\n')
        alone = percentiles(_kept(server, folder, seconds, None))
        beside = percentiles(_kept(server, folder, seconds, file))
    return Figure(
        "streaming",
        "p99 freshness of a live metric while `refold ingest` loads a file, against without it",
        beside[2],
        "ms",
        alone[2],
        at_most=2 * alone[2],
        note=f"p50 {beside[0]:.1f} and {alone[0]:.1f} ms",
    )


def _kept(server: Server, folder: Path, seconds: float, file: Path | None) -> list[float]:
    with server.database("beside") as url:
        with connect(url, "refold_worker", autocommit=True) as conn:
            deploy(conn, folder, load_directory(folder), lambda progress: None)
        with refold_workers(url, folder, 1), _ingest(url, file) as loading:
            delays = delays_of(url, "SELECT coalesce(max(events), 0) FROM metrics.on_log", seconds)
            if loading is not None and loading.poll() is not None:
                raise RuntimeError("the file was loaded before the end of the measurement: make it larger")
    return delays


@contextmanager
def _ingest(url: str, file: Path | None) -> Iterator[subprocess.Popen[bytes] | None]:
    if file is None:
        yield None
        return
    command = [sys.executable, "-m", "refold", "ingest", "--database-url", url, os.fspath(file)]
    loading = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield loading
    finally:
        loading.kill()
        loading.wait()


@contextmanager
def _door(url: str) -> Iterator[tuple[int, str, psutil.Process]]:
    with connection(url, "refold_owner", autocommit=True) as conn:
        token, _ = create(conn, "benchmark")
    port = free_port()
    command = [sys.executable, "-m", "refold", "serve", "--database-url", url, "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield port, token, psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def _post(port: int, token: str, body: Iterable[bytes]) -> None:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/x-ndjson"}
    client.request("POST", "/v1/events", _joined(body), headers, encode_chunked=True)
    reply = client.getresponse()
    told = reply.read()
    if reply.status != 200:
        raise RuntimeError(f"refold serve answered {reply.status}: {told[:500]!r}")
    client.close()


def _joined(lines: Iterable[bytes], size: int = 2**16) -> Iterator[bytes]:
    """Lines in pieces that are worth a chunk."""
    piece = bytearray()
    for line in lines:
        piece += line
        if len(piece) >= size:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


def _family(process: psutil.Process) -> Sequence[psutil.Process]:
    return [process, *process.children(recursive=True)]


def _resident(process: psutil.Process) -> float:
    return sum(one.memory_info().rss for one in _family(process)) / 2**20


class _Peak:
    """The most memory that a process and its children had at any look, in MiB."""

    def __init__(self, process: psutil.Process) -> None:
        self.mib = 0.0
        self._process = process
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._ended.wait(0.05):
            self.mib = max(self.mib, _resident(self._process))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
