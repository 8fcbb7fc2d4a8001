"""Peak memory of the processes that go through all of a file or log, at two sizes: it must not grow with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.dataset import BLOCK, block
from benchmarks.report import Figure
from benchmarks.server import Server
from refold.store.schema.resources import projections_dir

LARGER = 4
"""How many times as large the second file and log are."""
GROWTH = 1.15
"""What counts as flat: the interpreter's own noise."""


def measure(server: Server, events: int) -> list[Figure]:
    """Ingests a file, drains a worker and rebuilds everything, with a tenth of the events and four times as many."""
    small = max(1, events // 10 // BLOCK)
    sizes = (small, small * LARGER)
    peaks = [_run(server, blocks) for blocks in sizes]
    return [
        Figure(
            "memory",
            f"{what}: {LARGER} times the events",
            peaks[1][what] / peaks[0][what],
            "times the memory",
            at_most=GROWTH,
            note=", ".join(
                f"{peak[what]:.0f} MB at {size * BLOCK:,} events" for peak, size in zip(peaks, sizes, strict=True)
            ),
        )
        for what in peaks[0]
    ]


def _run(server: Server, blocks: int) -> dict[str, float]:
    with server.database("memory") as url, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for at in range(blocks):
                for event in block(at):
                    file.write(json.dumps({**event.model_dump(), "ts": event.ts.isoformat()}) + "\n")
        projections = os.fspath(projections_dir())
        _peak(url, ["deploy", "--projections", projections])
        return {
            "refold ingest": _peak(url, ["ingest", os.fspath(path)]),
            "refold worker --drain": _peak(url, ["worker", "--drain", "--projections", projections]),
            "refold rebuild": _peak(
                url, ["rebuild", "enriched_events", "active_users", "--cascade", "--projections", projections]
            ),
        }


_PEAK = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""
# What a process used before it became another program counts too. So it is started by a small one: started here it
# would seem to use as much as the benchmarks themselves.


def _peak(url: str, command: Sequence[str]) -> float:
    """Runs a command of refold's; its peak memory in MB (resident set)."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", _PEAK, sys.executable, "-m", "refold", *command],
        env={**os.environ, "REFOLD_DATABASE_URL": url},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"refold {command[0]} failed: {done.stderr}")
    return int(done.stdout) / 1024
