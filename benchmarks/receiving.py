"""What a dead receiver costs those who wait for fresh metrics, how often it is called, and how soon a live one knows.

By default it is dead for a few seconds. `python -m benchmarks.receiving 600` takes ten minutes with it and ten without.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from rich.console import Console

from benchmarks.freshness import METRICS, RATE, Run, commits_and_looks, percentiles, refold_workers
from benchmarks.report import Figure, show
from benchmarks.server import Server, serve
from refold.engine.deployment.deploy import deploy
from refold.model.projection.definition import load_directory
from refold.model.sink.sink_file import sink_file
from refold.postgres.connect import connect
from refold.sinks import deploy as deploy_sinks
from refold.sinks.kinds.registry import kinds

FAST = 1000
"""Appends a second beside a dead receiver."""
PROBED = 60.0
"""Seconds for which the calls of a dead receiver are counted."""
MANY = 8
"""Workers that share a dead receiver."""
SECONDS = 10.0
TOTAL = "SELECT coalesce(max(events), 0) FROM metrics.on_log"


def measure(server: Server, events: int) -> list[Figure]:
    """Freshness beside a dead receiver, calls of a dead receiver, and the way to a live one."""
    scale = 1.0 if events >= 1_000_000 else 0.25
    return [
        *_live(server, SECONDS * scale),
        _dead(server, SECONDS * scale),
        _calls(server, PROBED * scale),
    ]


def _live(server: Server, seconds: float) -> list[Figure]:
    with _receiver(dead=False) as receiver:
        run = _run(server, seconds, RATE, receiver)
        until = time.monotonic() + 60
        while not receiver.looks or receiver.looks[-1][1] < len(run.commits):
            if time.monotonic() > until:
                raise RuntimeError("the receiver was not given the last row")
            time.sleep(0.01)
        given = percentiles(run.delays(receiver.looks))
    shown = percentiles(run.delays())
    note = f"commit to visible metric: p50 {shown[0]:.1f}, p95 {shown[1]:.1f}, p99 {shown[2]:.1f} ms"
    what = f"of commit to webhook received, {RATE} appends/s"
    return [
        Figure("receiving", f"median {what}", given[0], "ms", shown[0], at_most=shown[0] + 50, note=note),
        Figure("receiving", f"p99 {what}", given[2], "ms", shown[2], at_most=3 * shown[2]),
    ]


def _dead(server: Server, seconds: float) -> Figure:
    alone = percentiles(_run(server, seconds, FAST, None).delays())
    with _receiver(dead=True) as receiver:
        beside = percentiles(_run(server, seconds, FAST, receiver).delays())
    return Figure(
        "receiving",
        f"p99 freshness at {FAST:,} appends/s, a receiver dead for {seconds:g} s, against without a sink",
        beside[2],
        "ms",
        alone[2],
        at_most=1.1 * alone[2],
        note=f"p50 {beside[0]:.1f} and {alone[0]:.1f}, p95 {beside[1]:.1f} and {alone[1]:.1f} ms",
    )


def _calls(server: Server, seconds: float) -> Figure:
    calls = []
    for workers in (1, MANY):
        with _receiver(dead=True) as receiver:
            _run(server, seconds, 50, receiver, workers=workers)
            calls.append(receiver.calls)
    # The pauses are drawn: their number has a spread of about its root.
    return Figure(
        "receiving",
        f"calls of a dead receiver by {MANY} workers in {seconds:g} s, against one worker",
        calls[1],
        "calls",
        calls[0],
        at_most=calls[0] + 2 * calls[0] ** 0.5,
    )


def _run(server: Server, seconds: float, rate: int, receiver: _Receiver | None, workers: int = 1) -> Run:
    with tempfile.TemporaryDirectory() as name, server.database("receiving") as url:
        folder = Path(name) / "projections"
        folder.mkdir()
        (folder / "on_log.sql").write_text(METRICS["on_log"] + "\n", encoding="utf-8")
        with connect(url, "refold_worker", autocommit=True) as conn:
            deploy(conn, folder, load_directory(folder), lambda progress: None)
            if receiver is not None:
                secret = Path(name) / "secret"
                secret.write_text("whsec_YmVuY2htYXJrIGJlbmNobWFyayBiZW5jaG1hcms=", encoding="utf-8")
                text = (
                    f'projection = "on_log"\nkind = "webhook"\n[webhook]\nurl = "{receiver.url}"\n'
                    f'secrets = ["file:{secret}"]\nallow_private = true\n'
                )
                file = sink_file("hook", text, Path(name), tuple(kinds()), [])
                assert file is not None
                [change] = deploy_sinks.plan(conn, [file], ["hook"])
                deploy_sinks.deploy(conn, change)
        with refold_workers(url, folder, workers):
            return commits_and_looks(url, TOTAL, seconds, rate)


class _Receiver:
    """A receiver of webhooks.

    Args:
        dead: answer nothing but errors.
    """

    def __init__(self, dead: bool) -> None:
        self.calls = 0
        self.looks: list[tuple[float, int]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.calls += 1
                if not dead:
                    receiver._take(json.loads(body)["data"].get("changes", ()))
                self.send_response(503 if dead else 204)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def _take(self, changes: list[dict[str, dict[str, int] | None]]) -> None:
        for change in changes:
            # One event was appended before the clock ran.
            if (row := change["row"]) is not None and row["events"] > 1:
                self.looks.append((time.monotonic(), row["events"] - 1))


@contextmanager
def _receiver(dead: bool) -> Iterator[_Receiver]:
    receiver = _Receiver(dead)
    threading.Thread(target=receiver.server.serve_forever, daemon=True).start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()


if __name__ == "__main__":
    with serve(None) as embedded:
        show(Console(width=160), [_dead(embedded, float(sys.argv[1]))])
