"""Programs that nobody here wrote read the files: pyarrow, DuckDB and Python's csv."""

import csv
import gzip
import importlib
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.support.folders import ONE, TWO, change, folder, purchases, shape

pa = importlib.import_module("pyarrow")
pq = importlib.import_module("pyarrow.parquet")
dataset = importlib.import_module("pyarrow.dataset")

COLUMNS = (
    ("id", "bigint"), ("level", "smallint"), ("count", "integer"), ("price", "numeric(10,2)"),
    ("wide", "numeric(50,3)"), ("free", "numeric"), ("ratio", "double precision"), ("share", "real"),
    ("paid", "boolean"), ("day", "date"), ("local", "timestamp without time zone"),
    ("at", "timestamp with time zone"), ("note", "text"), ("doc", "jsonb"), ("tags", "text[]"),
    ("sums", "numeric(8,1)[]"), ("raw", "bytea"), ("spell", "interval"),
)  # fmt: skip
VALUES = (
    "1", "2", "3", "1.50", "12345678901234567890.125", "1.500", "1e-07", "1.1", "t", "2026-03-02",
    "2026-03-02 10:00:00.5", "2026-03-02 10:00:00+00", 'ä "x", y', '{"a": 1.10}', '{a,"b c",NULL}', "{1.5,NULL}",
    "\\x00ff", "1 day 02:00:00",
)  # fmt: skip
ALL = shape(*COLUMNS)


def read(query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as conn:
        conn.execute("SET TimeZone = 'UTC'")
        return conn.execute(query).fetchall()


def test_pyarrow_reads_parquet_with_its_types(tmp_path: Path) -> None:
    folder(tmp_path, ALL).replace(ONE, 1, [change(ALL, *VALUES), change(ALL, "2", *[None] * (len(COLUMNS) - 1))])
    table = pq.read_table(tmp_path / "slice-1.parquet")
    assert [str(field.type) for field in table.schema] == [
        "int64", "int16", "int32", "decimal128(10, 2)", "decimal256(50, 3)", "string", "double", "float", "bool",
        "date32[day]", "timestamp[us]", "timestamp[us, tz=UTC]", "string", "string", "list<element: string>",
        "list<element: decimal128(8, 1)>", "binary", "string",
    ]  # fmt: skip
    assert list(table.to_pylist()[0].values()) == [
        1, 2, 3, Decimal("1.50"), Decimal("12345678901234567890.125"), "1.500", 1e-07, pytest.approx(1.1), True,
        date(2026, 3, 2), datetime(2026, 3, 2, 10, 0, 0, 500_000), datetime(2026, 3, 2, 10, tzinfo=UTC), 'ä "x", y',
        '{"a": 1.10}', ["a", "b c", None], [Decimal("1.5"), None], b"\x00\xff", "1 day 02:00:00",
    ]  # fmt: skip
    assert list(table.to_pylist()[1].values()) == [2] + [None] * (len(COLUMNS) - 1)
    assert pq.read_metadata(tmp_path / "slice-1.parquet").row_group(0).column(0).compression == "ZSTD"


def test_duckdb_reads_parquet_with_its_types(tmp_path: Path) -> None:
    narrow = shape(*(column for column in COLUMNS if column[0] != "wide"))
    values = [value for (name, _), value in zip(COLUMNS, VALUES, strict=True) if name != "wide"]
    folder(tmp_path, narrow).replace(ONE, 1, [change(narrow, *values)])
    (row,) = read(f"SELECT * FROM '{tmp_path}/*.parquet'")
    assert row == (
        1, 2, 3, Decimal("1.50"), "1.500", 1e-07, pytest.approx(1.1), True, date(2026, 3, 2),
        datetime(2026, 3, 2, 10, 0, 0, 500_000), datetime(2026, 3, 2, 10, tzinfo=UTC), 'ä "x", y', '{"a": 1.10}',
        ["a", "b c", None], [Decimal("1.5"), None], b"\x00\xff", "1 day 02:00:00",
    )  # fmt: skip


@pytest.mark.parametrize("compression", ["zstd", "snappy", "gzip", "none"])
def test_all_slices_are_one_table(tmp_path: Path, compression: str) -> None:
    files = folder(tmp_path, compression=compression)
    files.replace(ONE, 1, purchases(1, 2))
    files.replace(ONE, 2, purchases(3))
    files.replace(TWO, 1, purchases(2))
    # What a kill may leave is no part of it either.
    (tmp_path / ".refold-slice-3.parquet.0a1b2c3d").write_bytes(b"PAR1")
    expected = [(date(2026, 3, 2), Decimal("2.50")), (date(2026, 3, 3), Decimal("3.50"))]
    assert read(f"SELECT day, amount FROM '{tmp_path}/*.parquet' ORDER BY day") == expected
    table = dataset.dataset(tmp_path, format="parquet").to_table(columns=["day", "amount"])
    assert sorted(tuple(row.values()) for row in table.to_pylist()) == expected


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_duckdb_and_python_read_csv(tmp_path: Path, compression: str) -> None:
    of = shape(("id", "integer"), ("note", "text"), ("price", "numeric(10,2)"))
    given = [("1", "", "1.50"), ("2", None, None), ("3", 'a "b",\nc', "2.00")]
    folder(tmp_path, of, format="csv", compression=compression).replace(ONE, 1, [change(of, *row) for row in given])
    (path,) = tmp_path.glob("slice-1.csv*")
    found = read(f"SELECT * FROM read_csv('{path}', all_varchar = true, allow_quoted_nulls = false)")
    assert found == given
    text = (gzip.decompress(path.read_bytes()) if compression == "gzip" else path.read_bytes()).decode()
    assert text == 'id,note,price\r\n1,"",1.50\r\n2,,\r\n3,"a ""b"",\nc",2.00\r\n'
    rows = list(csv.DictReader(text.splitlines(keepends=True)))
    assert [row["note"] for row in rows] == ["", "", 'a "b",\nc']


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_duckdb_reads_json_lines(tmp_path: Path, compression: str) -> None:
    files = folder(tmp_path, format="jsonl", compression=compression)
    files.replace(ONE, 1, purchases(1, note="ä\n"))
    files.replace(ONE, 2, purchases(2, note=None))
    (path,) = tmp_path.glob("slice-1.jsonl*")
    found = read(f"SELECT day, users, amount, note FROM read_json('{tmp_path}/slice-*', format = 'newline_delimited')")
    assert sorted(found) == [(date(2026, 3, 1), 1, 1.5, "ä\n"), (date(2026, 3, 2), 2, 2.5, None)]
    text = (gzip.decompress(path.read_bytes()) if compression == "gzip" else path.read_bytes()).decode()
    assert [json.loads(line)["note"] for line in text.splitlines()] == ["ä\n"]
