"""Faults do what they say: a fault that changes nothing would make every campaign hold."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chaos.faults import inject
from chaos.schedule import EXPOSED, Step
from chaos.stage import Stage

from waiting import wait_until


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage(5)
    try:
        made.install()
        yield made
    finally:
        made.close(keep=False)


def rows(stage: Stage, name: str) -> int:
    with stage.connect() as conn:
        row = conn.execute(f"SELECT count(*) FROM metrics.{name}".encode()).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.slow
def test_tampering_changes_rows_that_reconcile_finds(stage: Stage) -> None:
    stage.work()
    stage.produce()
    wait_until(lambda: all(rows(stage, name) > 50 for name in EXPOSED), deadline_s=60)
    for name in EXPOSED:
        for kind in ("update", "delete", "insert", "truncate"):
            done = inject(stage, Step(0, "tampered", {"projection": name, "kind": kind, "rows": 3}))
            # Fewer than it was told to where a worker has just written the row anew.
            assert done.drift >= 1, done.note
    done = inject(stage, Step(0, "tampered", {"projection": "exposed_visitors", "kind": "forget", "rows": 3}))
    assert done.drift >= 1, done.note
    assert stage.refold("reconcile").status == 1
    assert stage.refold("reconcile").status == 0


@pytest.mark.slow
def test_a_killed_producer_is_replaced(stage: Stage) -> None:
    stage.produce(["single"])
    journal = stage.journals / "single.journal"
    wait_until(lambda: journal.exists() and b"answers" in journal.read_bytes(), deadline_s=30)
    _, killed = stage.producers[0]
    inject(stage, Step(0, "producer killed", {"producer": 0}))
    _, other = stage.producers[0]
    assert killed.poll() is not None and other.pid != killed.pid
    size = journal.stat().st_size
    wait_until(lambda: journal.stat().st_size > size, deadline_s=30)
    assert stage.stop_producing(30) == []
