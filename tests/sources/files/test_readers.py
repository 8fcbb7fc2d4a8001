"""Sources are opened in the right form, and give every record with its line, its row and its text."""

import gzip
import io
import re
from pathlib import Path
from typing import Any

import pytest

from refold.errors import InputError
from refold.sources.files.readers import Record, open_source


def records(text: str, **options: Any) -> list[Record]:
    with open_source("-", stdin=io.BytesIO(text.encode()), **options) as source:
        return list(source)


def test_json_lines() -> None:
    found = records('{"a": 1}\n\n  \n{"a": 1.10}\r\n{"a": \nlast', format="jsonl")
    assert [(r.line, r.row, r.raw) for r in found] == [
        (1, 1, '{"a": 1}'), (4, 2, '{"a": 1.10}'), (5, 3, '{"a":'), (6, 4, "last"),
    ]  # fmt: skip
    assert found[0].fields == {"a": 1}
    assert found[0].error is None
    assert str(found[1].fields) == "{'a': Decimal('1.10')}"
    assert found[2].fields is None
    assert str(found[2].error).startswith("the line is not valid JSON: Expecting value")
    assert str(found[3].error).startswith("the line is not valid JSON")


def test_json_lines_with_bad_bytes_keep_their_text() -> None:
    data = b'{"a": 1}\n{"a": "\xff"}\n{"a": "\0"}\n{"a": 2}\n'
    with open_source("-", format="jsonl", stdin=io.BytesIO(data)) as source:
        found = list(source)
    assert [r.row for r in found] == [1, 2, 3, 4]
    assert [r.fields for r in found] == [{"a": 1}, None, None, {"a": 2}]
    assert found[1].raw == '{"a": "\\xff"}'
    assert str(found[1].error).startswith("the line is not UTF-8")
    assert found[2].raw == '{"a": "\\x00"}'
    assert str(found[2].error).startswith("the line contains a NUL byte")


@pytest.mark.parametrize(
    ("name", "options", "columns"),
    [
        ("x.csv", {}, ("a", "b;c")),
        ("x.CSV", {}, ("a", "b;c")),
        ("x.csv.gz", {}, ("a", "b;c")),
        ("X.CSV.GZ", {}, ("a", "b;c")),
        ("x.csv.gz.gz", {}, ("a", "b;c")),
        ("x.Csv.zz", {}, ("a", "b;c")),
        ("x.tsv", {}, ("a,b;c",)),
        ("x.txt", {"delimiter": ";"}, ("a,b", "c")),
        ("x", {"format": "csv"}, ("a", "b;c")),
        ("x.txt", {"columns": ["u", " v "]}, ("u", "v")),
        ("x.jsonl", {}, None),
        ("x.ndjson.gz", {}, None),
        ("x.json", {}, None),
        ("x.csv", {"format": "jsonl"}, None),
    ],
)
def test_the_form_comes_from_the_name_or_the_options(
    tmp_path: Path, name: str, options: dict[str, Any], columns: tuple[str, ...] | None
) -> None:
    data = b"a,b;c\n1,2\n"
    unpacked = re.sub(r"(\.gz|\.zz)+$", "", name, flags=re.IGNORECASE)
    (tmp_path / name).write_bytes(data if name == unpacked else gzip.compress(data))
    with open_source(tmp_path / name, **options) as source:
        assert source.columns == columns
        assert source.name == unpacked
        list(source)
        assert source.bytes_read == source.total_bytes == (tmp_path / name).stat().st_size


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("-", {}, "cannot tell whether standard input holds JSON lines or CSV"),
        ("x.txt", {}, "cannot tell whether x.txt"),
        ("x.csv", {"format": "xml"}, "unknown format 'xml'"),
        ("x.jsonl", {"delimiter": ","}, "cannot open"),
        ("x.jsonl", {"format": "jsonl", "delimiter": ","}, "JSON lines have no delimiter"),
        ("x.csv", {"delimiter": ",,"}, "',,' cannot be a delimiter"),
        ("x.csv", {"delimiter": '"'}, "cannot be a delimiter"),
        ("x.csv", {"delimiter": ""}, "cannot be a delimiter"),
        ("none.csv", {}, "cannot open none.csv: No such file"),
    ],
)
def test_options_that_do_not_fit(path: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        open_source(path, **options)
    assert message in str(caught.value)


def test_names_of_sources(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text("a\n")
    with open_source(tmp_path / "shop.csv", name="web shop") as source:
        assert source.name == "web shop"
    with open_source("-", format="csv", columns=["a"], stdin=io.BytesIO()) as source:
        assert source.name == "-"
    with open_source("/dev/null", format="jsonl") as source:
        assert source.name == "-"


def test_a_file_that_breaks_off_delivers_what_came_before(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(b'{"n": %d}\n' % n for n in range(2000)))[:-500])
    found = []
    with open_source(path) as source, pytest.raises(InputError, match="end early or are damaged after line"):
        for record in source:
            found.append(record)
    assert len(found) > 100
    assert [r.fields for r in found] == [{"n": n} for n in range(len(found))]
