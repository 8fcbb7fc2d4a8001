"""What a purged log costs: a rebuild with half of it in the archive, the cold ledger's bytes, and appends beside it."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import psycopg

from benchmarks.archiving import until_sealed
from benchmarks.dataset import events as made
from benchmarks.report import Figure
from benchmarks.rounds import alternate
from benchmarks.server import Server
from benchmarks.workbench import Workbench
from refold import append
from refold.engine.archive import ownership, write
from refold.engine.archive.object_store import open_store
from refold.model.stream.slices import POSITION_BITS
from refold.store.archives import find
from refold.store.log.cold_ledger import chill_step

ROUNDS = 3
KINDS = {"members": "visitors", "merge": "counts", "facts": "amounts"}
BATCH = 10_000
"""Events in an append."""
BATCHES = 12


def measure(server: Server, events: int) -> list[Figure]:
    """Rebuilds metrics over a log of which half was purged, and over a whole one."""
    half = max(events // 2 >> POSITION_BITS, 1) << POSITION_BITS
    with (
        TemporaryDirectory() as folder,
        server.database("thawing") as url,
        server.database("thawing_whole") as whole_url,
    ):
        bench, whole = Workbench(url, 2 * half), Workbench(whole_url, 2 * half)
        for one in (bench, whole):
            one.hand.execute("UPDATE refold.settings SET segment_size = %s", (half,))
            for (segment,) in one.hand.execute("SELECT segment::text FROM refold.segments").fetchall():
                one.hand.execute(f"DROP TABLE {segment}".encode())
            one.hand.execute("SELECT refold.ensure_segments()")
            one.fill(2 * half)
        before = _append(whole, 0)
        location = str(Path(folder) / "archive")
        until_sealed(bench.worker, half >> POSITION_BITS)
        ownership.claim(bench.worker, open_store(location), location)
        write.run(bench.worker, by="benchmark", older_than_s=0)
        _purge(bench)
        moved, longest, cold = _chill(bench)
        after = _append(bench, 0)
        figures = [
            Figure("thawing", f"ids of {half:,} purged events moved", half / moved, "ids/s",
                   note=f"the longest transaction took {longest:.2f} s"),
            Figure("thawing", "cold ledger", cold / half, "bytes/id", at_most=20.0),
            Figure("thawing", f"appends of {BATCH:,} beside it", after, "events/s", before, after / before,
                   note="as COPY, each id looked up in its bucket"),
        ]  # fmt: skip
        for one in (bench, whole):
            one.deploy(*KINDS.values())
        for kind, projection in KINDS.items():
            figures.append(_rebuilt(bench, whole, kind, projection, 2 * half))
        bench.close()
        whole.close()
    return figures


def _purge(bench: Workbench) -> None:
    """Let the archived segment go, before there is any build."""
    archive, *_ = find(bench.worker, "a.state = 'verified'")
    with bench.hand.transaction():
        bench.hand.execute("SELECT refold.chill(%s, %s)", (archive.lower_position, archive.upper_position))
        bench.hand.execute(f"ALTER TABLE refold.events DETACH PARTITION {archive.segment}".encode())
        bench.hand.execute(
            "UPDATE refold.archives SET state = 'purged', purged_at = now() WHERE location = %s", (archive.location,)
        )
    bench.hand.execute(f"DROP TABLE {archive.segment}".encode())


def _chill(bench: Workbench) -> tuple[float, float, int]:
    """Move all ids; return the seconds, those of the longest step, and the bytes of the cold ledger."""
    steps: list[float] = []
    started = perf_counter()
    while chill_step(bench.worker) is not None:
        steps.append(perf_counter() - started - sum(steps))
    bench.hand.execute("VACUUM ANALYZE refold.event_ids")
    row = bench.hand.execute("SELECT pg_total_relation_size('refold.cold_ids')").fetchone()
    assert row is not None
    return sum(steps), max(steps), int(row[0])


def _append(bench: Workbench, at: int) -> float:
    """Append new events in batches; return how many a second."""
    seconds = []
    with psycopg.connect(bench.url, autocommit=True) as conn:
        for number in range(BATCHES):
            first = 100_000_000 + (at + number) * BATCH
            batch = list(made(first, first + BATCH))
            started = perf_counter()
            append(conn, batch)
            seconds.append(perf_counter() - started)
    return BATCH / median(seconds)


def _rebuilt(bench: Workbench, whole: Workbench, kind: str, projection: str, events: int) -> Figure:
    def forget() -> None:
        for one in (bench, whole):
            one.forget()
        # Otherwise the new build would begin with a copy of the base that the last one has loaded.
        bench.hand.execute("UPDATE refold.builds SET fingerprint = md5(random()::text)")

    compared = alternate(
        ROUNDS, events, lambda at: bench.rebuild(projection), lambda at: whole.rebuild(projection), before=forget
    )
    query = f"SELECT count(*), sum(hash_record_extended(m, 0)) FROM metrics.{projection} AS m".encode()
    assert bench.hand.execute(query).fetchone() == whole.hand.execute(query).fetchone(), projection
    return Figure("thawing", f"rebuild of {kind} with half the log in the archive", compared.measured, "events/s",
                  compared.baseline, compared.ratio, at_least=0.5)  # fmt: skip
