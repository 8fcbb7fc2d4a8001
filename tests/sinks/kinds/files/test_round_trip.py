"""What a file holds comes back as the texts that were delivered, of every type and in every format."""

import importlib
import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.sinks.kinds.files.array_text import array_text, elements
from refold.sinks.kinds.files.column_kinds import ColumnKind
from refold.sinks.kinds.files.csv_format import Csv
from refold.sinks.kinds.files.json_text import postgres_text
from refold.sinks.kinds.files.options import Compression
from refold.sinks.kinds.files.packing import Packing
from refold.sinks.receiver import Change, Refused
from tests.support.folders import ONE, change, folder, shape

TYPES: dict[str, list[str]] = {
    "smallint": ["-32768", "32767"],
    "integer": ["-2147483648", "0"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "numeric": ["1.50", "NaN", "Infinity", "-Infinity", "0.000000000000000000001", "123456789012345678901234567890"],
    "numeric(10,2)": ["1.50", "-0.01", "99999999.99", "0.00"],
    "numeric(38,10)": ["1234567890123456789012345678.0123456789"],
    "numeric(76,0)": ["9" * 76],
    "numeric(5)": ["-12345"],
    "numeric(3,5)": ["0.00123"],
    "numeric(3,-2)": ["12300", "-99900"],
    "numeric(80,2)": ["7" * 78 + ".50"],
    "real": ["1.1", "3.4028235e+38", "1e-45", "NaN", "-Infinity", "-0", "1.6777216e+07", "1e+06", "123456"],
    "double precision": ["1e-07", "NaN", "Infinity", "-Infinity", "-0", "0.1", "5e-324", "1.7976931348623157e+308",
                         "9.999999999999999e+22", "123456789012345", "1e+15", "0.0001"],
    "boolean": ["t", "f"],
    "date": ["2026-03-02", "0001-01-01", "9999-12-31"],
    "timestamp without time zone": ["2026-03-02 10:00:00", "0001-01-01 00:00:00.000001", "9999-12-31 23:59:59.999999"],
    "timestamp(3) with time zone": ["2026-03-02 10:00:00.12+00", "1969-12-31 23:59:59.999+00"],
    "timestamptz": ["2026-03-02 10:00:00+00"],
    "time without time zone": ["24:00:00", "10:00:00.5"],
    "interval": ["1 year 2 mons -3 days +04:05:06.7", "00:00:00", "36:00:00"],
    "text": ["", "NULL", "\\N", "\\.", '"', 'a"b,c', "line\nline", "line\r\nline", "\r", " blank ",
             "ä 🎉 \u2028 \u0085", "a" * 5000],
    'text COLLATE "C"': ["é"],
    "character varying(9)": ["null"],
    "character(3)": ["a  "],
    "uuid": ["0198c0de-0000-7000-8000-000000000000"],
    "bytea": ["\\x", "\\x00ff5c"],
    "jsonb": ['{"a": [1, 2.50, null], "ä": "\\n"}', "1.10", '"text"', "true", "[]"],
    "json": ['{"a":1, "a":2}'],
    "text[]": ["{}", '{a,"b c",NULL,"","NULL","a\\"b\\\\c","{}"}', '{ä,"x,y"}'],
    "integer[]": ["{1,NULL,-3}", "{}"],
    "numeric(10,2)[]": ["{1.50,NULL}"],
    "double precision[]": ["{1e-07,NaN,-0}"],
    "timestamp with time zone[]": ['{"2026-03-02 10:00:00+00",NULL}'],
    "date[]": ["{2026-03-02}"],
    "boolean[]": ["{t,f,NULL}"],
    "bytea[]": ['{"\\\\x00ff"}'],
    "shop.level": ["gold"],
    "int4range": ["[1,5)"],
}  # fmt: skip

_NUMBERS = ("smallint", "integer", "bigint", "numeric", "real", "double precision")


def as_json(kind: str, text: str | None) -> str:
    """A value as Postgres' row_to_json writes it."""
    if text is None or kind in ("json", "jsonb"):
        return "null" if text is None else text
    if kind.endswith("[]"):
        return "[" + ",".join(as_json(kind[:-2], one) for one in elements(text)) + "]"
    if kind.split("(")[0] in _NUMBERS and text[-1].isdigit():
        return text
    if kind == "boolean":
        return "true" if text == "t" else "false"
    if kind.startswith("timestamp"):
        text = text.replace(" ", "T").replace("+00", "+00:00")
    return json.dumps(text, ensure_ascii=False)


@pytest.mark.parametrize("format", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("kind", TYPES)
def test_values_come_back_as_they_were_given(tmp_path: Path, format: str, kind: str) -> None:
    of = shape(("value", kind), ("other", "text"))
    given = [(text, other) for text in [*TYPES[kind], None] for other in ("", None)]
    files = folder(tmp_path, of, format=format)
    files.replace(
        ONE,
        1,
        [
            change(of, text, other, json_text=f'{{"value":{as_json(kind, text)},"other":{as_json("text", other)}}}')
            for text, other in given
        ],
    )
    assert list(files.rows(1)) == given


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from('",\\{}\r\n\t. '))


@given(st.lists(st.tuples(st.none() | TEXTS, st.none() | TEXTS)), st.sampled_from(["none", "gzip"]))
def test_any_texts_come_back_from_csv(rows: list[tuple[str | None, str | None]], compression: Compression) -> None:
    of = shape(("a", "text"), ("b", "text"))
    format = Csv(of.columns, Packing(compression))
    file = io.BytesIO()
    format.write(file, [change(of, *row) for row in rows])
    file.seek(0)
    assert list(format.read(file)) == rows


@given(st.lists(st.none() | TEXTS))
def test_any_texts_come_back_from_arrays(texts: list[str | None]) -> None:
    assert elements(array_text(texts)) == texts
    assert postgres_text(json.dumps(texts, indent=1), ColumnKind("text", is_array=True)) == array_text(texts)


@pytest.mark.parametrize("format", ["parquet", "csv", "jsonl"])
def test_a_single_column_comes_back(tmp_path: Path, format: str) -> None:
    of = shape(("value", "text"))
    given = [None, "", "x", "\\.", None]
    files = folder(tmp_path, of, format=format)
    files.replace(ONE, 1, [change(of, text) for text in given])
    assert list(files.rows(1)) == [(text,) for text in given]


@pytest.mark.parametrize("format", ["parquet", "csv", "jsonl"])
def test_names_of_columns_are_free(tmp_path: Path, format: str) -> None:
    of = shape(('say "hi", you', "text"), ("ä\nb", "integer"), ("", "text"))
    files = folder(tmp_path, of, format=format)
    files.replace(ONE, 1, [change(of, "1", "2", "3")])
    assert list(files.rows(1)) == [("1", "2", "3")]


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        ("date", "infinity", "which a Parquet date cannot hold"),
        ("date", "0044-03-15 BC", "which a Parquet date cannot hold"),
        ("date", "10000-01-01", "which a Parquet date cannot hold"),
        ("timestamp with time zone", "-infinity", "which a Parquet timestamp cannot hold"),
        ("timestamp without time zone", "294276-12-31 00:00:00", "which a Parquet timestamp cannot hold"),
        ("numeric(10,2)", "NaN", "which a Parquet decimal cannot hold"),
        ("integer[]", "{{1,2},{3,4}}", "only lists of one dimension"),
        ("integer[]", "[0:1]={1,2}", "only lists of one dimension"),
        ("text[]", '{{"{}",b}}', "only lists of one dimension"),
    ],
)
def test_what_parquet_cannot_hold_is_refused_and_csv_takes_it(
    tmp_path: Path, kind: str, text: str, reason: str
) -> None:
    of = shape(("id", "integer"), ("value", kind))
    rows = [change(of, "1", None), change(of, "2", text), change(of, "3", None)]
    with pytest.raises(Refused, match=reason) as told:
        folder(tmp_path / "a", of).replace(ONE, 1, rows)
    assert "column 'value'" in str(told.value)
    assert '{"id": "2"}' in str(told.value)
    files = folder(tmp_path / "b", of, format="csv")
    files.replace(ONE, 1, rows)
    assert [value for _, value in files.rows(1)] == [None, text, None]


@pytest.mark.parametrize(
    ("kind", "text", "json_text"),
    [
        ("jsonb", "null", '{"value":null}'),
        ("shop.pair", "(1,x)", '{"value":{"a":1,"b":"x"}}'),
        ("integer[]", "[0:1]={1,2}", '{"value":[1,2]}'),
    ],
)
def test_what_json_lines_cannot_tell_is_refused(tmp_path: Path, kind: str, text: str, json_text: str) -> None:
    of = shape(("value", kind))
    with pytest.raises(Refused, match="column 'value'") as told:
        folder(tmp_path, of, format="jsonl").replace(ONE, 1, [change(of, text, json_text=json_text)])
    assert told.value.remedy


def test_lines_of_json_are_lines(tmp_path: Path) -> None:
    of = shape(("id", "integer"), ("doc", "json"))
    files = folder(tmp_path, of, format="jsonl")
    files.replace(ONE, 1, [change(of, "1", '{\r\n  "a": 1\n}', json_text='{"id":1,"doc":{\r\n  "a": 1\n}}')])
    (line,) = (tmp_path / "slice-1.jsonl").read_text().splitlines()
    assert json.loads(line) == {"id": 1, "doc": {"a": 1}}


def test_json_lines_keep_all_digits(tmp_path: Path) -> None:
    of = shape(("id", "numeric"), ("doc", "jsonb"))
    line = '{"id":12345678901234567890.000001000,"doc":{"a": 1.10, "b": [1e400]}}'
    files = folder(tmp_path, of, format="jsonl")
    files.replace(ONE, 1, [change(of, "12345678901234567890.000001000", "…", json_text=line)])
    assert (tmp_path / "slice-1.jsonl").read_text() == line + "\n"
    assert list(files.rows(1)) == [("12345678901234567890.000001000", '{"a": 1.10, "b": [1e400]}')]


@pytest.mark.parametrize("format", ["parquet", "csv", "jsonl"])
def test_a_large_slice_is_not_held_in_memory(tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refold.sinks.kinds.files.parquet_format._GROUP_CHARACTERS", 1 << 20)
    of = shape(("id", "bigint"), ("note", "text"))

    def rows() -> Iterator[Change]:
        for number in range(400):
            yield change(of, str(number), f"{number}".ljust(50_000, "x"))

    files = folder(tmp_path, of, format=format)
    tracemalloc.start()
    try:
        files.replace(ONE, 1, rows())
        count = sum(1 for _ in files.rows(1))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 400
    # 20 million characters are in the file. Of a Parquet file, one batch of read rows is in memory.
    assert most < (45 << 20 if format == "parquet" else 5 << 20)
    if format == "parquet":
        parquet = importlib.import_module("pyarrow.parquet")
        assert parquet.read_metadata(tmp_path / "slice-1.parquet").num_row_groups == 20
