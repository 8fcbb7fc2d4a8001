"""Rows go while workers apply pages, others add checksums up, and producers append late events."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from refold.engine.reconcile.reconcile import reconcile
from refold.engine.retain.let_go import let_go
from refold.service.duties import compact_checksums
from refold.store import retentions
from refold.store.builds.compiled import Compiler
from tests.engine.retain.conftest import BY_TIME, FIRST, PROJECT, Retained
from tests.support.law import worker_connection

pytestmark = pytest.mark.live("retained")

ROUNDS = 6


def test_everybody_at_once(retained: Retained) -> None:
    over = threading.Event()
    failures: list[BaseException] = []

    def guarded(work: object) -> threading.Thread:
        def run() -> None:
            try:
                while not over.is_set():
                    work()  # type: ignore[operator]
            except BaseException as error:
                failures.append(error)
                over.set()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    with worker_connection(retained.url) as folding, worker_connection(retained.url) as auditing:
        own = Compiler(PROJECT)

        def heal() -> None:
            found = reconcile(auditing, own, depth="slice", by="the test")
            # An audit whose SQL is from before the first rows went is refused, and nothing is found.
            assert (found.findings, found.checksums) == ([], [])

        threads = [
            guarded(retained.drain),
            guarded(lambda: compact_checksums.run(folding, own)),
            guarded(heal),
        ]
        with worker_connection(retained.url) as worker:
            compiler = Compiler(PROJECT)
            for at in range(ROUNDS):
                retained.append(40)
                for name in BY_TIME:
                    retentions.put(worker, name, keep_from=FIRST + timedelta(days=10 * at))
                    wanted = retentions.find(worker, name)
                    assert wanted is not None
                    let_go(worker, compiler, wanted, rows=5)
        over.set()
        for thread in threads:
            thread.join(60)
    assert failures == []
    retained.drain()
    retained.look()
    assert retained.wrong() == {}
