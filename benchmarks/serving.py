"""The HTTP door: single events from many connections, against a commit for each and against a handler by hand.

The load comes from `wrk` (apt-get install wrk), which shares the processors with the servers. Each server is a process;
rounds take turns. The baseline by hand needs fastapi and psycopg_pool (the extra `benchmarks`).
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psycopg

from benchmarks.report import Figure
from benchmarks.server import Server
from refold.postgres.connect import connection
from refold.store.tokens import create

CONNECTIONS = 64
ROUNDS = 2
SECONDS = 4
FSYNCS = 200

_SCRIPT = """
local number, start = 0, os.time()
function setup(thread) thread:set("id", tostring(thread.addr)) end
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. os.getenv("TOKEN")
function request()
    number = number + 1
    return wrk.format(nil, "/v1/events", nil, string.format(
        '{"id":"%s-%d","user_id":"u%d","action":"view","ts":1767225600000,"metadata":{"page":"/p/%d","amount":%d}}',
        os.getenv("RUN"), number, number % 1000, number % 77, number))
end
"""


def measure(server: Server, events: int) -> list[Figure]:
    """Events a second and latencies of the three servers."""
    if shutil.which("wrk") is None:
        raise RuntimeError("wrk is not installed: apt-get install wrk")
    with server.database("serving") as url:
        with connection(url, "refold_owner", autocommit=True) as conn:
            token, _ = create(conn, "benchmark")
        with _servers(url, token) as ports:
            many = _rounds(ports, token, CONNECTIONS)
            one = _rounds(ports, token, 1)
        fsync = _fsync_ms(url)
    return [
        _against(many, "one-commit", f"{CONNECTIONS} connections, single events, against one commit each", 4.0),
        _against(many, "by-hand", f"{CONNECTIONS} connections, single events, against a handler by hand", 3.0),
        Figure(
            "serving",
            f"p99 at {CONNECTIONS} connections, against one commit each",
            median(run.p99 for run in many["door"]),
            "ms",
            median(run.p99 for run in many["one-commit"]),
            at_most=median(run.p99 for run in many["one-commit"]),
        ),
        _against(one, "one-commit", "1 connection, against one commit each", 0.9),
        _against(one, "by-hand", "1 connection, against a handler by hand", 0.9),
        Figure("serving", "one durable write of 8 kB, for comparison", fsync, "ms"),
    ]


class _Run:
    """What wrk measured: requests a second, and latencies in ms."""

    def __init__(self, printed: str) -> None:
        found = re.search(r"Requests/sec:\s+([0-9.]+)", printed)
        late = re.search(r"99%\s+([0-9.]+)(us|ms|s)", printed)
        if found is None or late is None or "Non-2xx" in printed:
            raise RuntimeError(f"wrk: {printed}")
        self.rate = float(found[1])
        self.p99 = float(late[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[late[2]]


def _against(runs: dict[str, list[_Run]], other: str, what: str, goal: float) -> Figure:
    pairs = list(zip(runs["door"], runs[other], strict=True))
    return Figure(
        "serving",
        what,
        median(own.rate for own, _ in pairs),
        "events/s",
        median(its.rate for _, its in pairs),
        median(own.rate / its.rate for own, its in pairs),
        at_least=goal,
    )


def _rounds(ports: dict[str, int], token: str, connections: int) -> dict[str, list[_Run]]:
    runs: dict[str, list[_Run]] = {name: [] for name in ports}
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT)
        script.flush()
        for number in range(ROUNDS):
            for name, port in ports.items():
                command = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency", "-s", script.name]
                done = subprocess.run(
                    [*command, f"http://127.0.0.1:{port}"],
                    env={**os.environ, "TOKEN": token, "RUN": f"{connections}-{name}-{number}"},
                    capture_output=True,
                    text=True,
                    check=True,
                )
                runs[name].append(_Run(done.stdout))
    return runs


@contextmanager
def _servers(url: str, token: str) -> Iterator[dict[str, int]]:
    commands: dict[str, Sequence[str]] = {
        "door": ("-m", "refold", "serve", "--database-url", url, "--port"),
        "one-commit": ("-m", "benchmarks.serving_baselines", "one-commit", url),
        "by-hand": ("-m", "benchmarks.serving_baselines", "by-hand", url),
    }
    ports = {name: free_port() for name in commands}
    started = [
        subprocess.Popen([sys.executable, *command, str(ports[name])], stderr=subprocess.DEVNULL)
        for name, command in commands.items()
    ]
    try:
        for port in ports.values():
            wait_for(port)
        yield ports
    finally:
        for process in started:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(port: int) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"no server listens on port {port}")


def _fsync_ms(url: str) -> float:
    """How long a durable write takes where the server's data are."""
    with psycopg.connect(url) as conn:
        row = conn.execute("SHOW data_directory").fetchone()
        assert row is not None
    took = []
    with tempfile.TemporaryFile(dir=Path(str(row[0])).parent) as file:
        for _ in range(FSYNCS):
            started = time.perf_counter()
            file.write(bytes(8192))
            file.flush()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - started)
    return median(took) * 1000
