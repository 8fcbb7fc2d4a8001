"""The Python transform that is delivered, working off a backlog in one process."""

from __future__ import annotations

import time

from benchmarks.dataset import BLOCK, block
from benchmarks.report import Figure
from benchmarks.server import Server
from refold import Log
from refold.engine.apply.page import apply_next_page
from refold.engine.apply.step import ceiling
from refold.engine.deployment.deploy import deploy
from refold.model.projection.definition import load_directory
from refold.postgres.connect import connect
from refold.postgres.session import PAGES
from refold.store.builds.build import live
from refold.store.builds.compiled import Compiler
from refold.store.schema.resources import projections_dir


def measure(server: Server, events: int) -> list[Figure]:
    """Applies a fifth of the events through `enriched_events`."""
    blocks = max(1, events // 5 // BLOCK)
    folder = projections_dir()
    with server.database("transforming") as url:
        worker = connect(url, "refold_worker", autocommit=True, settings=PAGES)
        definitions = load_directory(folder)
        deploy(worker, folder, {"enriched_events": definitions["enriched_events"]}, lambda progress: None)
        with Log(url) as log:
            for at in range(blocks):
                log.append(block(at))
        build = live(worker, "enriched_events")
        assert build is not None
        compiled = Compiler(folder).of(worker, build)
        applied = 0
        started = time.perf_counter()
        while (page := apply_next_page(worker, compiled, ceiling(build.upkeep))) is not None and page.events:
            applied += page.events
        spent = time.perf_counter() - started
        worker.close()
    assert applied == blocks * BLOCK, (applied, blocks)
    return [
        Figure("transforming", "enriched_events, one process", applied / spent, "events/s", at_least=20_000),
    ]
