"""Numbers in what a check promises are those that will be there, digit for digit."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from refold.cli.backfill_report import _sums
from refold.postgres.connect import connect
from refold.store import file_backfills as store
from tests.support.backfilling import check, give, stage, write
from tests.support.scratch import Scratch

NUMBERS = {
    "numeric": ["12345678901234567890.123456789", "0.1", "-0.000000000000000000001", "1.50"],
    "double precision": ["9007199254740991", "0.1", "1234567890123456.7", "-5e-324"],
    "real": ["16777215", "0.1", "123456.79"],
    "bigint": ["9007199254740993", "-1"],
}
FACTS = "SELECT event_id, ((metadata ->> 'x')::{0}) AS x FROM events WHERE metadata ? 'x'"
LARGEST = "SELECT action, max((metadata ->> 'x')::{0}) AS x, count(*) AS n FROM events GROUP BY action"


@pytest.mark.parametrize("kind", NUMBERS)
def test_no_digit_is_lost(scratch: Scratch, tmp_path: Path, kind: str) -> None:
    scratch.deploy(facts=FACTS.format(kind), largest=LARGEST.format(kind))
    records = [
        {"id": f"b{at}", "user_id": "u", "action": f"a{at}", "ts": 1_772_409_600_000 + at, "metadata": {"x": value}}
        for at, value in enumerate(NUMBERS[kind])
    ]
    backfill = stage(scratch.url, "history", write(tmp_path / "old.jsonl", records))
    found = {one.metric: one for one in check(scratch.url, backfill, scratch.folder).effects}
    assert all(one.told for one in found.values()), found
    assert give(scratch.url, backfill).accepted == len(records)
    scratch.drain()
    for metric in ("facts", "largest"):
        # As text, which has all digits of a float.
        rows = scratch.worker.execute(f"SELECT x::text FROM metrics.{metric} ORDER BY 1".encode()).fetchall()
        exact = [Decimal(text) for (text,) in rows]
        # Decimals are added with 28 digits, unless somebody says otherwise.
        assert Fraction(found[metric].sums["x"]) == sum(map(Fraction, exact))
        samples = [row["x"] for sample in found[metric].samples for row in sample["after"]]
        assert sorted(map(Decimal, samples)) == sorted(exact)
        assert f"x {found[metric].sums['x']:+,}" in _sums(found[metric])
    with connect(scratch.url, "refold_backfill", autocommit=True) as conn:
        (kept,) = conn.execute("SELECT findings::text FROM refold.file_backfills").fetchone() or ("",)
        stored = {one["metric"]: one for one in json.loads(kept, parse_float=Decimal)["effects"]}
        assert Decimal(stored["facts"]["sums"]["x"]) == found["facts"].sums["x"]
        assert store.every(conn)[0].state == "done"
