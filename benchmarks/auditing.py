"""Audits: quick against a full recomputation, healing by slices, and what keeping the figures costs the pages."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

from benchmarks.applying import KINDS, PAGE
from benchmarks.dataset import START, STEP
from benchmarks.report import Figure
from benchmarks.rounds import alternate, seconds
from benchmarks.server import Server
from benchmarks.workbench import Workbench
from refold.engine.apply.page import apply_next_page
from refold.engine.deployment.deploy import deploy
from refold.engine.reconcile.audit import audit
from refold.engine.reconcile.reconcile import reconcile
from refold.engine.reconcile.result import ReconcileReport
from refold.model.projection.definition import load_directory
from refold.store.builds.build import live
from refold.store.builds.compiled import CompiledBuild, Compiler
from refold.store.schema.resources import projections_dir

SPAN = timedelta(days=180)
ROUNDS = 5
CHANGED = (1, 10, 100)


def measure(server: Server, events: int) -> list[Figure]:
    """Audits all delivered projections over half a year of events; then applies pages with and without figures."""
    with server.database("auditing") as url:
        bench = Workbench(url, events)
        bench.hand.execute("UPDATE plain.events SET ts = %s + (ts - %s) * %s", (START, START, SPAN / (events * STEP)))
        bench.fill(events)
        folder = projections_dir()
        definitions = load_directory(folder)
        deploy(bench.worker, folder, definitions, lambda progress: None)
        bench.hand.execute("VACUUM ANALYZE")
        compiler = Compiler(folder)
        figures = [_quick(bench, compiler, list(definitions)), *(_heal(bench, compiler, k) for k in CHANGED)]
        bench.close()
    with server.database("keeping") as url:
        page = min(PAGE, max(1, events // 20))
        half = events // page // 2 * page
        bench = Workbench(url, events)
        bench.fill(half)
        bench.deploy(*(projection for projection, _ in KINDS.values()))
        bench.fill(half + half)
        figures += [_keep(bench, kind, projection, half, page) for kind, (projection, _) in KINDS.items()]
        bench.close()
    return figures


def _quick(bench: Workbench, compiler: Compiler, names: list[str]) -> Figure:
    def quick(at: int) -> None:
        assert reconcile(bench.worker, compiler, depth="quick").clean

    def everything(at: int) -> None:
        for name in names:
            build = live(bench.worker, name)
            assert build is not None
            assert not audit(bench.worker, compiler.of(bench.worker, build)).suspects

    compared = alternate(ROUNDS, 1.0, quick, everything)
    return Figure(
        "auditing",
        f"quick audit of {len(names)} delivered projections, against recomputing everything",
        1000 / compared.measured,
        "ms",
        1000 / compared.baseline,
        compared.ratio,
        at_least=20,
    )


def _heal(bench: Workbench, compiler: Compiler, changed: int) -> Figure:
    build = live(bench.worker, "event_counts")
    assert build is not None
    table = compiler.of(bench.worker, build).statements.relations[0].table
    bench.worker.execute(
        f"UPDATE {table} SET events = events + 1"
        f" WHERE ctid IN (SELECT ctid FROM {table} ORDER BY md5(ctid::text) LIMIT %s)".encode(),
        (changed,),
    )
    found: list[ReconcileReport] = []
    spent = seconds(lambda at: found.append(reconcile(bench.worker, compiler, ["event_counts"], depth="slice")), 0)
    assert found[0].drift == changed, found[0].counts
    return Figure(
        "auditing",
        f"{changed} changed rows of event_counts found and healed by slices",
        spent * 1000,
        "ms",
    )


def _keep(bench: Workbench, kind: str, projection: str, half: int, page: int) -> Figure:
    pages = half // page
    together = max(1, pages // 20)
    compiled = bench.compiled(projection)
    bare = without_checksums(compiled)

    def apply(compiled: CompiledBuild) -> None:
        for _ in range(together):
            applied = apply_next_page(bench.worker, compiled, page)
            assert applied is not None and applied.events == page, applied

    compared = alternate(pages // together // 2, together * page, lambda at: apply(compiled), lambda at: apply(bare))
    return Figure(
        "auditing",
        f"{kind}: pages of {page:,} with checksums, against pages that keep none",
        compared.measured,
        "events/s",
        compared.baseline,
        compared.ratio,
        at_least=0.75,
    )


def without_checksums(compiled: CompiledBuild) -> CompiledBuild:
    """The same upkeep with nothing in its pages about checksums."""
    statements = compiled.statements
    return replace(
        compiled, statements=replace(statements, page=_cut(statements.page), backlog=_cut(statements.backlog))
    )


def _cut(sql: str) -> str:
    sql = re.sub(r",\nchecksums AS \(\n.*?\n\)(?=\nSELECT)", "", sql, flags=re.DOTALL)
    sql = re.sub(r",\s*before__ = hash_record_extended\(ROW\([^()]*\), \d+\)", "", sql)
    # What is returned beside the hashes, a set's keys, is still needed.
    sql = re.sub(r"RETURNING .* AS slice__, .*? AS new__, (?!before__)", "RETURNING ", sql)
    sql = re.sub(r"RETURNING .* AS slice__, .* AS new__(, before__ AS old__)?$", "RETURNING 1", sql, flags=re.MULTILINE)
    assert "checksum" not in sql and "before__" not in sql and "slice" not in sql, sql
    return sql
