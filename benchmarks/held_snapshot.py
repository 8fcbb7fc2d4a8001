"""Freshness while somebody holds an old snapshot, and after: an analyst's long query, pg_dump, a replication slot.

One producer appends single events at a steady rate; a reader looks at the total of a metric. All starter projections
are kept beside it. By default the snapshot is held for ten minutes. The schedule that PgQue publishes for eight queues
(10 minutes clean, 30 held, 10 of recovery) takes 50: `python -m benchmarks.held_snapshot 600 1800 600`.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
from rich.console import Console

from benchmarks.freshness import METRICS, refold_workers
from benchmarks.report import Figure, show
from benchmarks.server import Server, serve
from refold.engine.deployment.deploy import deploy
from refold.model.projection.definition import load_directory
from refold.postgres.connect import connect
from refold.store.schema.resources import projections_dir

RATE = 50
"""Appends a second."""
CLEAN, HELD, RECOVERY = 60, 600, 120
"""Seconds before, under, and after the snapshot."""
PROBE = 0.003
"""Seconds between two looks at the metric."""
SLOWER = 1.5
"""The last minute's median may be so many times the first's."""


def measure(server: Server, events: int) -> list[Figure]:
    """The median of each minute; with few events, of minutes that are a few seconds."""
    scale = 1.0 if events >= 1_000_000 else 0.05
    return run(server, CLEAN * scale, HELD * scale, RECOVERY * scale, minute=60 * scale)


def run(server: Server, clean: float, held: float, recovery: float, *, minute: float = 60.0) -> list[Figure]:
    """Appends through all three phases.

    Args:
        server: where.
        clean: seconds without a snapshot.
        held: seconds under one.
        recovery: seconds after it.
        minute: seconds over which medians are taken.
    """
    with tempfile.TemporaryDirectory() as name, server.database("held_snapshot") as url:
        folder = Path(name)
        for path in projections_dir().glob("*.*"):
            shutil.copy(path, folder)
        (folder / "on_log.sql").write_text(METRICS["on_log"] + "\n", encoding="utf-8")
        with connect(url, "refold_worker", autocommit=True) as conn:
            deploy(conn, folder, load_directory(folder), lambda progress: None)
        with refold_workers(url, folder, 1):
            medians = _by_minute(url, clean, held, recovery, minute)
            dead = _dead(url)
    before = medians[: int(clean / minute)]
    under = medians[len(before) : len(before) + int(held / minute)]
    after = medians[len(before) + len(under) :]
    told = f"medians by the minute: {_listed(before)} | held {_listed(under)} | {_listed(after)} ms; {dead}"
    return [
        Figure("held_snapshot", f"median of minute {len(under)} under a held snapshot, {RATE} appends/s", under[-1],
               "ms", baseline=under[0], at_most=under[0] * SLOWER, note=told),
        Figure("held_snapshot", "median of the last minute, the snapshot gone for one", after[-1],
               "ms", baseline=before[-1] if before else under[0], at_most=(before or under)[0] * SLOWER),
    ]  # fmt: skip


def _by_minute(url: str, clean: float, held: float, recovery: float, minute: float) -> list[float]:
    """Medians of commit to visible, ms."""
    commits: list[float] = []
    total = int((clean + held + recovery) * RATE)
    delays: defaultdict[int, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        reader, producer, holder = (stack.enter_context(psycopg.connect(url, autocommit=True)) for _ in range(3))
        start = time.monotonic() + 2.0

        def produce() -> None:
            for at in range(total):
                time.sleep(max(0.0, start + at / RATE - time.monotonic()))
                event = {"id": f"held-{at}", "user_id": f"user-{at % 997}", "action": "view", "ts": 1767225600000}
                producer.execute("SELECT answer FROM refold.append(%s::jsonb)", (json.dumps([event]),))
                commits.append(time.monotonic())

        thread = threading.Thread(target=produce, daemon=True)
        thread.start()
        snapshot: ExitStack | None = None
        visible = 0
        while visible < total:
            now = time.monotonic() - start
            if snapshot is None and clean <= now < clean + held:
                snapshot = ExitStack()
                snapshot.enter_context(_held(holder))
            elif snapshot is not None and now >= clean + held:
                snapshot.close()
                snapshot = None
            row = reader.execute(b"SELECT coalesce(max(events), 0) FROM metrics.on_log", prepare=True).fetchone()
            seen = time.monotonic()
            assert row is not None
            # A commit is noted a moment after others can see it.
            for moment in commits[visible : int(row[0])]:
                delays[int((moment - start) / minute)].append(max(0.0, seen - moment) * 1000)
                visible += 1
            if now > clean + held + recovery + 120:
                raise RuntimeError(f"{visible} of {total} events are visible")
            time.sleep(PROBE)
        thread.join()
    return [statistics.median(delays[at]) for at in sorted(delays) if at < int((clean + held + recovery) / minute)]


@contextmanager
def _held(conn: psycopg.Connection) -> Iterator[None]:
    """A snapshot that is taken and not let go."""
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        conn.execute("SELECT count(*) FROM refold.builds")
        yield


def _dead(url: str) -> str:
    """What was updated and deleted most, and how much of it is dead."""
    with psycopg.connect(url) as conn:
        rows = conn.execute(
            """
            SELECT relname, n_tup_upd + n_tup_del, n_dead_tup FROM pg_stat_user_tables
            WHERE n_tup_upd + n_tup_del > 0 ORDER BY 2 DESC LIMIT 5
            """
        ).fetchall()
    return "changed: " + ", ".join(f"{name} {changed:,} ({dead:,} dead)" for name, changed, dead in rows)


def _listed(medians: Sequence[float]) -> str:
    return " ".join(f"{one:.1f}" for one in medians)


if __name__ == "__main__":
    seconds = [float(one) for one in sys.argv[1:4]]
    with serve(None) as embedded:
        show(Console(width=160), run(embedded, *seconds, minute=min(60.0, *seconds)))
