"""Files of a sink are the metric, slice by slice, and an audit reads them back."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from refold.engine.reconcile.reconcile import reconcile
from refold.sinks.audit import audit
from refold.sinks.deliver import Deliverer
from refold.store import sinks
from refold.store.builds.compiled import Compiler
from tests.sinks.test_histories import tamper
from tests.sinks.test_rows import METRICS
from tests.support.delivering import deliver, deploy_sink
from tests.support.scratch import Scratch


def to_files(projection: str, folder: Path, format: str) -> str:
    return f'projection = "{projection}"\nkind = "files"\n[files]\nurl = "{folder}"\nformat = "{format}"\n'


def lines(folder: Path) -> list[dict[str, str]]:
    """Return the rows of all CSV files, as another program reads them."""
    found = []
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="") as file:
            found += list(csv.DictReader(file))
    return found


@pytest.mark.parametrize("metric", ["merge", "vanishing", "facts"])
def test_files_follow_the_metric(scratch: Scratch, tmp_path: Path, metric: str) -> None:
    lake = tmp_path / "lake"
    scratch.deploy_one(metric, METRICS[metric])
    scratch.append(30, user_id="ann", metadata={"n": 1})
    scratch.drain()
    deploy_sink(scratch.worker, "copy", to_files(metric, lake, "csv"))
    deliver(scratch.worker, scratch.folder, "copy")
    for user in ("ben", None, "ann"):
        scratch.append(3, user_id=user, metadata={"n": 7})
        scratch.drain()
        deliver(scratch.worker, scratch.folder, "copy")
        same(scratch, metric, lake)
    tamper(scratch, metric)
    reconcile(scratch.worker, Compiler(scratch.folder), [metric], depth="deep", by="test")
    scratch.deploy_one(metric, METRICS[metric].replace("FROM events", "FROM events /* again */"))
    scratch.drain()
    deliver(scratch.worker, scratch.folder, "copy")
    same(scratch, metric, lake)


def same(scratch: Scratch, metric: str, lake: Path) -> None:
    found = scratch.worker.execute(f"SELECT * FROM metrics.{metric} LIMIT 0".encode())
    columns = [column.name for column in found.description or ()]
    texts = ", ".join(f"coalesce({column}::text, '')" for column in columns)
    rows = scratch.worker.execute(f"SELECT {texts} FROM metrics.{metric}".encode()).fetchall()
    assert sorted(tuple(row[column] for column in columns) for row in lines(lake)) == sorted(rows)


@pytest.mark.parametrize("format", ["parquet", "csv", "jsonl"])
def test_an_audit_finds_a_file_that_was_changed(scratch: Scratch, tmp_path: Path, format: str) -> None:
    lake = tmp_path / "lake"
    scratch.deploy_one("merge", METRICS["merge"])
    for user in "abcdefgh":
        scratch.append(3, user_id=user, metadata={"n": 1.50})
    scratch.drain()
    sink = deploy_sink(scratch.worker, "copy", to_files("merge", lake, format))
    deliver(scratch.worker, scratch.folder, "copy")
    deliverer = Deliverer(scratch.worker, Compiler(scratch.folder), "auditor")
    try:
        clean = audit(scratch.worker, deliverer, sink)
        assert (clean.skipped, list(clean.wrong)) == (None, [])
        assert clean.slices == len(list(lake.glob("slice-*")))
        first, second, *_ = sorted(lake.glob("slice-*"))
        first.write_bytes(second.read_bytes())
        second.unlink()
        found = audit(scratch.worker, deliverer, sink)
        assert len(found.wrong) == 2
        while deliverer.turn(sink):
            pass
        assert list(audit(scratch.worker, deliverer, sink).wrong) == []
    finally:
        deliverer.release()


def test_a_folder_that_was_emptied_is_filled_again(scratch: Scratch, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    scratch.deploy_one("merge", METRICS["merge"])
    scratch.append(3, user_id="ann")
    scratch.drain()
    sink = deploy_sink(scratch.worker, "copy", to_files("merge", lake, "csv"))
    deliver(scratch.worker, scratch.folder, "copy")
    for path in lake.iterdir():
        path.unlink()
    scratch.append(3, user_id="ben")
    scratch.drain()
    deliver(scratch.worker, scratch.folder, "copy")
    assert sinks.state(scratch.worker, sink.sink_id)[0].error is None
    same(scratch, "merge", lake)
