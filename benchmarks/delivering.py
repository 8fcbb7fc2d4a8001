"""What sinks cost pages, how fast they deliver, and what an audit of a receiver costs."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from benchmarks.report import Figure
from benchmarks.rounds import Comparison, alternate
from benchmarks.server import Server
from benchmarks.workbench import PROJECTIONS, Workbench
from refold.engine.apply.page import apply_next_page
from refold.model.projection.definition import load_directory
from refold.model.sink.sink_file import sink_file
from refold.sinks import deploy
from refold.sinks.audit import audit
from refold.sinks.deliver import Deliverer
from refold.sinks.kinds.registry import kinds
from refold.store import outbox, sinks
from refold.store.builds.build import live, lock
from refold.store.builds.compiled import Compiler

PAGE = 10_000
KINDS = {"merge": "counts", "members": "visitors", "facts": "amounts", "recompute": "paths"}
FIVE = 5


def measure(server: Server, events: int) -> list[Figure]:
    """Builds each metric three times over half of the events: without a sink, with one, and with five."""
    page = min(PAGE, max(1, events // 20))
    half = events // page // 2 * page
    with (
        TemporaryDirectory() as folder,
        server.database("delivering") as url,
        server.database("receiving") as target,
    ):
        for projection in KINDS.values():
            text = (PROJECTIONS / f"{projection}.sql").read_text()
            for suffix in ("", "_sent", "_five"):
                (Path(folder) / f"{projection}{suffix}.sql").write_text(text)
        bench = Workbench(url, events)
        bench.definitions = load_directory(Path(folder))
        bench.fill(half)
        bench.deploy(*bench.definitions)
        for projection in KINDS.values():
            _deploy(bench, f"{projection}_sent", target, 1)
            _deploy(bench, f"{projection}_five", target, FIVE)
        bench.fill(half + half)
        figures = [
            figure for kind, projection in KINDS.items() for figure in _pages(bench, kind, projection, half, page)
        ]
        figures += _deliveries(bench, target)
        bench.close()
    return figures


def _deploy(bench: Workbench, metric: str, target: str, number: int) -> None:
    """Deploy sinks of a metric that follow it; nothing is delivered yet."""
    build = live(bench.worker, metric)
    assert build is not None
    for at in range(number):
        name = f"{metric}_{at}"
        text = f'projection = "{metric}"\nkind = "postgres"\n[postgres]\nurl = "{target}"\ntable = "{name}"\n'
        file = sink_file(name, text, Path(name), tuple(kinds()), [])
        assert file is not None
        [change] = [one for one in deploy.plan(bench.worker, [file], [name]) if one.name == name]
        deploy.deploy(bench.worker, change)
        sinks.attach(bench.worker, build.build_id, sinks.known(bench.worker, name).sink_id)


def _pages(bench: Workbench, kind: str, projection: str, half: int, page: int) -> list[Figure]:
    pages = half // page
    together = max(1, pages // 10)

    def apply(metric: str) -> None:
        build = live(bench.worker, metric)
        assert build is not None
        compiled = compilers.of(bench.worker, build)
        for _ in range(together):
            applied = apply_next_page(bench.worker, compiled, page)
            assert applied is not None and applied.events == page, applied

    compilers = Compiler(None)
    bench.hand.execute("VACUUM ANALYZE")
    rounds: list[tuple[float, float, float]] = []
    for at in range(pages // together):
        # Each in another place of the round.
        order = [("", "_sent", "_five"), ("_sent", "_five", ""), ("_five", "", "_sent")][at % 3]
        took = {}
        for suffix in order:
            started = time.perf_counter()
            apply(projection + suffix)
            took[suffix] = time.perf_counter() - started
        rounds.append((took[""], took["_sent"], took["_five"]))
    work = together * page
    one = Comparison(tuple((sent, plain) for plain, sent, _ in rounds), work)
    five = Comparison(tuple((many, sent) for _, sent, many in rounds), work)
    return [
        Figure("delivering", f"{kind}: pages of {page:,} with a sink, against none", one.measured, "events/s",
               one.baseline, one.ratio, at_least=0.9),
        Figure("delivering", f"{kind}: the same with five sinks, against one", five.measured, "events/s",
               five.baseline, five.ratio, at_least=0.9),
    ]  # fmt: skip


def _deliveries(bench: Workbench, target: str) -> list[Figure]:
    """Deliver the rows of a stream to another database, by messages, against one upsert of the same rows there."""
    sink = sinks.known(bench.worker, "amounts_sent_0")
    deliverer = Deliverer(bench.worker, Compiler(None), "benchmark")
    with psycopg.connect(target, autocommit=True) as there:
        # Everything once, so that the target has its table, and the messages are all there is.
        while deliverer.turn(sink):
            pass
        there.execute("CREATE TABLE by_hand (LIKE amounts_sent_0 INCLUDING ALL)")
        there.execute("CREATE TABLE staged AS SELECT * FROM amounts_sent_0")
        there.execute("INSERT INTO by_hand SELECT * FROM staged")
        there.execute("VACUUM ANALYZE")
        keys = 20_000
        build = live(bench.worker, "amounts_sent")
        assert build is not None
        table = f"refold_builds.{build.table_name}"
        columns = [str(name) for (name,) in there.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'staged'::regclass AND attnum > 0 ORDER BY attnum"
        ).fetchall()]  # fmt: skip
        changed = ", ".join(f"{name} = excluded.{name}" for name in columns if name != "event_id")

        def send() -> None:
            assert build is not None
            rows = (
                "SELECT refold.position_slice(position) AS slice, jsonb_build_object('event_id', event_id) AS key"
                f" FROM (SELECT * FROM {table} ORDER BY position LIMIT {keys}) AS t"
            )
            with bench.worker.transaction():
                lock(bench.worker, build.build_id, wait=True)
                outbox.send(bench.worker, sink.sink_id, ["event_id"], psycopg.sql.SQL(rows))

        def deliver(at: int) -> None:
            while outbox.waits(bench.worker, sink.sink_id, 0):
                deliverer.turn(sink)

        def upsert(at: int) -> None:
            there.execute(
                f"INSERT INTO by_hand SELECT * FROM (SELECT * FROM staged LIMIT {keys}) AS s"
                f" ON CONFLICT (event_id) DO UPDATE SET {changed}".encode()
            )

        delivered = alternate(10, keys, deliver, upsert, before=send)

        def compare(at: int) -> None:
            listed = ", ".join(columns[:-3])
            sides = []
            for conn, relation in ((bench.worker, "metrics.amounts_sent"), (there, "amounts_sent_0")):
                with (
                    conn.cursor() as cursor,
                    cursor.copy(f"COPY (SELECT {listed} FROM {relation}) TO STDOUT".encode()) as copy,
                ):
                    sides.append({bytes(row) for row in copy})
            assert sides[0] == sides[1]

        def audited(at: int) -> None:
            outcome = audit(bench.worker, deliverer, sink)
            assert outcome.skipped is None and not outcome.wrong, outcome

        audits = alternate(3, 1, audited, compare)
    deliverer.release()
    return [
        Figure("delivering", f"facts: {keys:,} keys into another database, against an upsert", delivered.measured,
               "rows/s", delivered.baseline, delivered.ratio, at_least=0.5),
        Figure("delivering", "audit of a clean table, against reading and comparing both", 1000 / audits.measured, "ms",
               1000 / audits.baseline, audits.ratio, at_least=10),
    ]  # fmt: skip
