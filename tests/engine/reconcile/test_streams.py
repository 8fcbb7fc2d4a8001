"""A stream is healed: what reads it is healed with it, and what arrives meanwhile is not taken for drift."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from refold.engine.apply.load import load_step
from refold.engine.deployment.create import make_builds, new_deployment
from refold.engine.reconcile.reconcile import reconcile
from refold.model.projection.definition import load_directory
from refold.store.builds.compiled import Compiler
from tests.support.scratch import Scratch

PAIRS = """
from pydantic import BaseModel
from refold import Event, transform

class Row(BaseModel):
    a: str

@transform()
def pairs(event: Event) -> list[Row]:
    return [Row(a=event.action), Row(a="x")]
"""
COPIES = """
from pydantic import BaseModel
from refold import transform

class Pair(BaseModel):
    a: str

class Row(BaseModel):
    b: str

@transform(reads="pairs")
def copies(row: Pair) -> Row:
    return Row(b=row.a)
"""


def test_what_arrives_between_audit_and_healing_is_not_taken_for_orphans(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch.append(10)
    scratch.deploy(pairs=PAIRS, copies=COPIES, counts="SELECT a, count(*) AS n FROM pairs GROUP BY a")
    module = import_module("refold.engine.reconcile.reconcile")
    heal = module.heal

    def late(*arguments: Any, **options: Any) -> Any:
        if scratch.rows("counts")[0][1] == 10:
            scratch.append(30)
            scratch.drain()
        return heal(*arguments, **options)

    monkeypatch.setattr(module, "heal", late)
    table = scratch.build("pairs").table_name
    scratch.worker.execute(f"UPDATE refold_builds.{table} SET a = 'wrong' WHERE event_id = 'e9#0'".encode())
    reconcile(scratch.worker, scratch.folder)
    assert scratch.rows("counts") == [("a", 40), ("x", 40)]
    assert scratch.rows("pairs") == [("a",)] * 40 + [("x",)] * 40


def test_a_transform_below_a_healed_stream_is_computed_again(scratch: Scratch) -> None:
    scratch.append(3)
    scratch.deploy(pairs=PAIRS, copies=COPIES)
    table = scratch.build("pairs").table_name
    scratch.worker.execute(f"UPDATE refold_builds.{table} SET a = 'wrong' WHERE event_id = 'e1#0'".encode())
    copies = scratch.build("copies").table_name
    scratch.worker.execute(f"UPDATE refold_builds.{copies} SET b = 'wrong' WHERE event_id = 'e1#0'".encode())
    assert reconcile(scratch.worker, scratch.folder).drift == 2
    assert scratch.rows("copies") == [("a",)] * 3 + [("x",)] * 3


def test_a_range_that_would_end_inside_an_event_is_no_drift(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch.append(10)
    scratch.deploy(pairs=PAIRS, copies=COPIES)
    assert reconcile(scratch.worker, scratch.folder, dry_run=True).drift == 0


def test_a_half_loaded_reader_of_a_healed_stream_starts_over(scratch: Scratch) -> None:
    scratch.append(4)
    scratch.deploy(clicks="SELECT action FROM events")
    table = scratch.build("clicks").table_name
    scratch.worker.execute(f"UPDATE refold_builds.{table} SET action = 'b' WHERE event_id = 'e0'".encode())
    scratch.worker.execute(f"ANALYZE refold_builds.{table}".encode())
    scratch.write(counts="SELECT action, count(*) AS n FROM clicks GROUP BY action")
    with scratch.worker.transaction():
        deployment = new_deployment(scratch.worker, "deploy", promote=True)
        make_builds(scratch.worker, [load_directory(scratch.folder)["counts"]], deployment, resumed={})
    counts = scratch.build("counts")
    compiled = Compiler(scratch.folder).of(scratch.worker, counts)
    step = load_step(scratch.worker, compiled, step=2)
    assert step is not None and not step.finished
    # What an earlier step failed with, and what is kept about rows: of a load that is started over nothing stays.
    scratch.worker.execute("UPDATE refold.builds SET error = 'too many' WHERE projection = 'counts'")
    scratch.worker.execute("INSERT INTO refold.checksums VALUES (%s, 0, 0, 7, 7)", (counts.build_id,))
    scratch.worker.execute("INSERT INTO refold.audits (build_id, rolling) VALUES (%s, true)", (counts.build_id,))
    reconcile(scratch.worker, scratch.folder)
    counts = scratch.build("counts")
    assert (counts.error, counts.load_step, counts.target) == (None, 0, None)
    for kept in ("checksums", "audits"):
        rows = scratch.worker.execute(f"SELECT FROM refold.{kept} WHERE build_id = %s".encode(), (counts.build_id,))
        assert rows.rowcount == 0
    scratch.drain()
    assert scratch.rows("counts") == [("a", 4)]
