"""What Postgres wrote comes back to Postgres: the same texts, the same hashes, and CSV through COPY."""

import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from refold.postgres.connect import connect as connect_as
from refold.sinks.kinds.files.float_text import float_text
from refold.sinks.receiver import Change, Shape
from tests.sinks.kinds.files.test_round_trip import TYPES
from tests.support.folders import ONE, folder, shape

Connection = psycopg.Connection[Any]

HERE = {kind: texts for kind, texts in TYPES.items() if not kind.startswith("shop.") and kind != "json"}
"""The types of a plain database, without the one that has no hash."""


@pytest.fixture
def session(database_url: str, admin: Connection) -> Iterator[Connection]:
    """A connection as the one that reads a metric for its sinks."""
    admin.execute("CREATE SCHEMA lake")
    admin.execute("GRANT ALL ON SCHEMA lake TO PUBLIC")
    with connect_as(database_url, "refold_worker", autocommit=True) as conn:
        yield conn


def texts(conn: Connection, query: str) -> list[tuple[str | None, ...]]:
    """The rows of a query as the texts that Postgres writes."""
    result = conn.pgconn.exec_params(query.encode(), [])
    assert result.status == psycopg.pq.ExecStatus.TUPLES_OK, result.error_message
    return [
        tuple(
            None if (value := result.get_value(row, column)) is None else value.decode()
            for column in range(result.nfields)
        )
        for row in range(result.ntuples)
    ]


def metric(conn: Connection, columns: dict[str, list[str]]) -> tuple[Shape, list[Change]]:
    """Makes lake.metric with a column of each type; returns its shape and rows as a sink reads them."""
    named = [(f"c{number}", kind) for number, kind in enumerate(columns)]
    definition = ", ".join(["id bigint", *(f"{name} {kind}" for name, kind in named)])
    conn.execute(f"CREATE TABLE lake.metric ({definition})".encode())
    for number in range(max(map(len, columns.values())) + 1):
        given = [given[number] if number < len(given) else None for given in columns.values()]
        marks = ", ".join(["%s::bigint", *(f"%s::{kind}" for _, kind in named)])
        conn.execute(f"INSERT INTO lake.metric VALUES ({marks})".encode(), [str(number), *given])
    declared = texts(
        conn,
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = 'lake.metric'::regclass AND attnum > 0 ORDER BY attnum",
    )
    of = shape(*((str(name), str(kind)) for name, kind in declared))
    rows = texts(conn, "SELECT row_to_json(t), t.* FROM lake.metric AS t ORDER BY id")
    return of, [Change(f'{{"id": {row[1]}}}', 1, row[1:], str(row[0])) for row in rows]


def check(conn: Connection, of: Shape, rows: list[tuple[str | None, ...]]) -> None:
    """Compares rows that were read back with lake.metric: by text, and by the hashes of Postgres."""
    assert rows == texts(conn, "SELECT * FROM lake.metric ORDER BY id")
    conn.execute("CREATE TABLE lake.back (LIKE lake.metric)")
    marks = ", ".join(f"%s::{column.type}" for column in of.columns)
    conn.cursor().executemany(f"INSERT INTO lake.back VALUES ({marks})".encode(), rows)
    total = sql.SQL("SELECT count(*), sum(hash_record_extended(t, 0)::numeric) FROM lake.{} AS t")
    metric, back = (conn.execute(total.format(sql.Identifier(name))).fetchone() for name in ("metric", "back"))
    assert back == metric
    assert back is not None and back[0] > 5


@pytest.mark.parametrize("format", ["parquet", "csv", "jsonl"])
def test_rows_come_back_with_their_hashes(session: Connection, tmp_path: Path, format: str) -> None:
    columns = HERE | {"jsonb": [text for text in HERE["jsonb"] if text != "null"]}
    of, rows = metric(session, columns)
    files = folder(tmp_path, of, format=format)
    files.replace(ONE, 1, rows)
    check(session, of, list(files.rows(1)))


def test_json_lines_of_plain_types_come_back(session: Connection, tmp_path: Path) -> None:
    """These are read in another way than lists and objects."""
    columns = {kind: texts for kind, texts in HERE.items() if "[" not in kind and kind not in ("jsonb", "int4range")}
    of, rows = metric(session, columns)
    files = folder(tmp_path, of, format="jsonl")
    files.replace(ONE, 1, rows)
    check(session, of, list(files.rows(1)))


def test_csv_holds_all_that_the_others_refuse(session: Connection, tmp_path: Path) -> None:
    columns = {
        "date": ["infinity", "0044-03-15 BC", "5874897-12-31"],
        "timestamp with time zone": ["-infinity", "4713-11-24 00:00:00+00 BC", "294276-12-31 23:59:59.999999+00"],
        "numeric(10,2)": ["NaN"],
        "integer[]": ["{{1,2},{3,4}}", "[0:1]={1,2}"],
        "jsonb": ["null", "{}", "1", "2", "3", "4"],
    }
    of, rows = metric(session, columns)
    files = folder(tmp_path, of, format="csv")
    files.replace(ONE, 1, rows)
    check(session, of, list(files.rows(1)))


def test_copy_reads_csv(session: Connection, tmp_path: Path) -> None:
    of, rows = metric(session, HERE)
    files = folder(tmp_path, of, format="csv")
    files.replace(ONE, 1, rows)
    session.execute("CREATE TABLE lake.copied (LIKE lake.metric)")
    with session.cursor().copy("COPY lake.copied FROM STDIN (FORMAT csv, HEADER match)") as copy:
        copy.write((tmp_path / "slice-1.csv").read_bytes())
    assert texts(session, "SELECT * FROM lake.copied ORDER BY id") == [row.values for row in rows]


@pytest.mark.parametrize("texts_given", [[None, "", "\\.", "x", None], ["\r\n", '"', ",", " ", "NULL", "\\N"]])
def test_copy_reads_csv_of_one_column(session: Connection, tmp_path: Path, texts_given: list[str | None]) -> None:
    of = shape(("value", "text"))
    files = folder(tmp_path, of, format="csv")
    files.replace(ONE, 1, [Change("{}", 1, (text,), "") for text in texts_given])
    session.execute("CREATE TABLE lake.copied (line bigint GENERATED ALWAYS AS IDENTITY, value text)")
    with session.cursor().copy("COPY lake.copied (value) FROM STDIN (FORMAT csv, HEADER match)") as copy:
        copy.write((tmp_path / "slice-1.csv").read_bytes())
    assert [value for (value,) in texts(session, "SELECT value FROM lake.copied ORDER BY line")] == texts_given


@pytest.mark.parametrize(("kind", "bits"), [("double precision", 53), ("real", 24)])
def test_floats_are_written_as_postgres_writes_them(session: Connection, kind: str, bits: int) -> None:
    generator = random.Random(7)
    whole, fraction, size = ("<Q", "<d", 64) if bits == 53 else ("<I", "<f", 32)

    def of_bits(pattern: int) -> float:
        return float(struct.unpack(fraction, struct.pack(whole, pattern))[0])

    patterns = [generator.getrandbits(size) for _ in range(20_000)]
    powers = [2.0**power for power in (range(-1074, 1024) if bits == 53 else range(-149, 128))]
    tens = [float(f"1e{power}") for power in (range(-300, 308) if bits == 53 else range(-37, 38))]
    numbers = [of_bits(pattern) for pattern in patterns]
    numbers += [*powers, *(-one for one in tens), *(generator.randrange(2**62) * 1.0 for _ in range(5000)), 0.0, -0.0]
    if bits == 24:
        numbers = [float(struct.unpack("<f", struct.pack("<f", one))[0]) for one in numbers]
    session.execute("CREATE TEMP TABLE floats (place integer, value double precision)")
    with session.cursor().copy("COPY floats FROM STDIN") as copy:
        for place, number in enumerate(numbers):
            copy.write_row((place, float_text(number)))
    written = texts(session, f"SELECT value::{kind} FROM floats ORDER BY place")
    assert [float_text(number, bits) for number in numbers] == [text for (text,) in written]
