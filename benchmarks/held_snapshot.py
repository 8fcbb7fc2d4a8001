"""Freshness while somebody holds an old snapshot, and after: an analyst's long query, pg_dump, a replication slot.

One producer appends single events at a steady rate; a reader looks at the total of a metric, and at the copy of it that
a sink delivers to another database. All starter projections are kept beside it. By default the snapshot is held for ten
minutes. The schedule that PgQue publishes for eight queues (10 minutes clean, 30 held, 10 of recovery) takes 50:
`python -m benchmarks.held_snapshot 600 1800 600`.
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
from rich.console import Console

from benchmarks.freshness import METRICS, refold_workers
from benchmarks.report import Figure, show
from benchmarks.server import Server, serve
from refold.engine.deployment.deploy import deploy
from refold.model.projection.definition import load_directory
from refold.model.sink.sink_file import sink_file
from refold.postgres.connect import connect
from refold.sinks import deploy as deploy_sinks
from refold.sinks.kinds.registry import kinds
from refold.store.schema.resources import projections_dir

RATE = 50
"""Appends a second."""
CLEAN, HELD, RECOVERY = 60, 600, 120
"""Seconds before, under, and after the snapshot."""
PROBE = 0.003
"""Seconds between two looks at the metric."""
SHOWN = "SELECT coalesce(max(events), 0) FROM metrics.on_log"
COPIED = "SELECT coalesce(max(events), 0) FROM copy"
SINK = 'projection = "on_log"\nkind = "postgres"\n[postgres]\nurl = "{url}"\ntable = "copy"\n'
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
    with (
        tempfile.TemporaryDirectory() as name,
        server.database("held_snapshot") as url,
        server.database("held_copy", install=False) as copy,
    ):
        folder = Path(name)
        for path in projections_dir().glob("*.*"):
            shutil.copy(path, folder)
        (folder / "on_log.sql").write_text(METRICS["on_log"] + "\n", encoding="utf-8")
        with connect(url, "refold_worker", autocommit=True) as conn:
            deploy(conn, folder, load_directory(folder), lambda progress: None)
            file = sink_file("copy", SINK.format(url=copy), folder, tuple(kinds()), [])
            assert file is not None
            [change] = deploy_sinks.plan(conn, [file], ["copy"])
            deploy_sinks.deploy(conn, change)
        with refold_workers(url, folder, 1):
            places = {"metric": (url, SHOWN), "copy in another database": (copy, COPIED)}
            found = _by_minute(places, clean, held, recovery, minute)
            dead = _dead(url)
    return [
        figure for place, medians in found.items() for figure in _figures(place, medians, clean, held, minute, dead)
    ]


def _figures(
    place: str, medians: list[float], clean: float, held: float, minute: float, dead: str
) -> tuple[Figure, Figure]:
    before = medians[: int(clean / minute)]
    under = medians[len(before) : len(before) + int(held / minute)]
    after = medians[len(before) + len(under) :]
    told = f"medians by the minute: {_listed(before)} | held {_listed(under)} | {_listed(after)} ms; {dead}"
    return (
        Figure("held_snapshot", f"{place}: median of minute {len(under)} under a held snapshot, {RATE} appends/s",
               under[-1], "ms", baseline=under[0], at_most=under[0] * SLOWER, note=told),
        Figure("held_snapshot", f"{place}: median of the last minute, the snapshot gone for one", after[-1],
               "ms", baseline=before[-1] if before else under[0], at_most=(before or under)[0] * SLOWER),
    )  # fmt: skip


def _by_minute(
    places: Mapping[str, tuple[str, str]], clean: float, held: float, recovery: float, minute: float
) -> dict[str, list[float]]:
    """Medians of commit to visible, ms, for each place: where it is, and the query for its total."""
    commits: list[float] = []
    total = int((clean + held + recovery) * RATE)
    delays: dict[str, defaultdict[int, list[float]]] = {place: defaultdict(list) for place in places}
    url = next(iter(places.values()))[0]
    with ExitStack() as stack:
        producer, holder = (stack.enter_context(psycopg.connect(url, autocommit=True)) for _ in range(2))
        readers = {
            place: stack.enter_context(psycopg.connect(where, autocommit=True)) for place, (where, _) in places.items()
        }
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
        visible = dict.fromkeys(places, 0)
        while min(visible.values()) < total:
            now = time.monotonic() - start
            if snapshot is None and clean <= now < clean + held:
                snapshot = ExitStack()
                snapshot.enter_context(_held(holder))
            elif snapshot is not None and now >= clean + held:
                snapshot.close()
                snapshot = None
            for place, (_, query) in places.items():
                shown = _total(readers[place], query)
                seen = time.monotonic()
                # A commit is noted a moment after others can see it.
                for moment in commits[visible[place] : shown]:
                    delays[place][int((moment - start) / minute)].append(max(0.0, seen - moment) * 1000)
                    visible[place] += 1
            if now > clean + held + recovery + 120:
                raise RuntimeError(f"{visible} of {total} events are visible")
            time.sleep(PROBE)
        thread.join()
    last = int((clean + held + recovery) / minute)
    return {place: [statistics.median(by[at]) for at in sorted(by) if at < last] for place, by in delays.items()}


def _total(conn: psycopg.Connection, query: str) -> int:
    try:
        row = conn.execute(query.encode(), prepare=True).fetchone()
    except psycopg.errors.UndefinedTable:
        # Before the first delivery.
        return 0
    assert row is not None
    return int(row[0])


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
