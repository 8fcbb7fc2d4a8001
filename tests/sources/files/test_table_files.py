"""Rows of CSV files, good and bad."""

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.errors import InputError
from refold.sources.files import tables as table_files
from refold.sources.files.lines import MAX_LINE_BYTES
from refold.sources.files.readers import Record, open_source


def records(data: str | bytes, **options: Any) -> list[Record]:
    encoded = data.encode() if isinstance(data, str) else data
    with open_source("-", stdin=io.BytesIO(encoded), **{"format": "csv", **options}) as source:
        return list(source)


def test_rows_and_where_they_start() -> None:
    found = records('\ufeffa, b\r\n1,"x\r\ny"\r\n\r\n2,"say ""hi"""\r\n3,')
    assert found == [
        Record(2, 1, '1,"x\r\ny"', {"a": "1", "b": "x\r\ny"}),
        Record(5, 2, '2,"say ""hi"""', {"a": "2", "b": 'say "hi"'}),
        Record(6, 3, "3,", {"a": "3", "b": ""}),
    ]


def test_bad_rows_are_counted_and_kept_and_the_rest_goes_on() -> None:
    data = b'a,b\n1,2\n1,2,3\n1\n"1"x,2\n\xff,2\n"\0",2\n,\n9,9\n'
    found = records(data)
    assert [(r.line, r.row) for r in found] == [(n + 1, n) for n in range(1, 9)]
    assert [r.raw for r in found] == ["1,2", "1,2,3", "1", '"1"x,2', "\\xff,2", '"\\x00",2', ",", "9,9"]
    reasons = [str(r.error) for r in found if r.fields is None]
    expected = [
        "the row has 3 values for 2 columns",
        "the row has 1 values for 2 columns",
        "the row is not valid CSV",
        "the row is not UTF-8",
        "the row contains a NUL byte",
    ]
    assert all(reason.startswith(start) for reason, start in zip(reasons, expected, strict=True))


def test_bad_bytes_inside_a_quoted_line_break_spoil_that_row_only() -> None:
    found = records(b'a,b\n1,"x\n\xff\ny"\n2,3\n')
    assert [r.fields is None for r in found] == [True, False]
    assert found[0].raw == '1,"x\n\\xff\ny"'
    assert found[1].line == 5


def test_a_stray_quote_spoils_its_line_only() -> None:
    """What it swallows is read again, wherever the next quote stands."""
    for end, why in (
        ("4,5", "is never closed"),
        ('4,"5"', "is closed within a value, in line 4"),
        ('"4",5', "is closed within a value, in line 4"),
        ('4,""', "is never closed"),
    ):
        found = records(f'a,b\n1,"x\n2,3\n{end}\n"6","7\n8"\n' if "closed within" in why else f'a,b\n1,"x\n2,3\n{end}')
        assert found[0] == Record(2, 1, '1,"x', None, f"the row opens a quote that {why}")
        assert found[1] == Record(3, 2, "2,3", {"a": "2", "b": "3"})
        assert (found[2].line, found[2].fields) == (4, {"a": "4", "b": end[2:].strip('"') if end[0] == "4" else "5"})
        if len(found) > 3:
            assert found[3:] == [Record(5, 4, '"6","7\n8"', {"a": "6", "b": "7\n8"})]


def test_a_quote_that_is_not_closed_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_files, "MAX_LINE_BYTES", 1000)
    found = records('a,b\n1,"x\n' + '2,""\n' * 300 + '3,"y\n' + "4,5\n" * 300)
    spoilt = [r for r in found if r.error]
    assert [(r.line, r.raw) for r in spoilt] == [(2, '1,"x'), (303, '3,"y')]
    assert {r.error for r in spoilt} == {"the row opens a quote that is not closed within 1000 characters"}
    assert [r.line for r in found] == list(range(2, 604))
    assert [r.row for r in found] == list(range(1, 603))
    assert found[-1].fields == {"a": "4", "b": "5"}


def test_lines_are_read_again_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many quotes are stray: what one swallows up to the bound holds no other that could."""
    monkeypatch.setattr(table_files, "MAX_LINE_BYTES", 2000)
    given = 0
    give = table_files._Feed.__next__

    def counted(feed: Any) -> str:
        nonlocal given
        given += 1
        return give(feed)

    monkeypatch.setattr(table_files._Feed, "__next__", counted)
    rows = ['1,"x', '2,""', '3,"a""b"', '"""",4', "5,6", '7,"""', '"8,9']
    found = records("a,b\n" + "\n".join(rows * 300) + "\n")
    assert len(found) == len(rows) * 300
    assert given < 3 * len(found)


def test_a_line_that_is_too_long_takes_no_other_with_it() -> None:
    found = records('a,b\n1,"' + "x" * MAX_LINE_BYTES + '"\n2,3\n')
    assert [r.fields for r in found] == [None, {"a": "2", "b": "3"}]
    assert f"more than {MAX_LINE_BYTES}" in str(found[0].error)


def test_a_value_as_long_as_a_line_may_be() -> None:
    found = records("a,b\n1," + "x" * 1_000_000 + "\n")
    assert found[0].error is None


def test_blank_rows_and_empty_rows() -> None:
    assert [r.raw for r in records("a\tb\n\n  \n\t\n1\t2\n", delimiter="tab")] == ["\t", "1\t2"]


@pytest.mark.parametrize("delimiter", ["\t", "tab", "\\t"])
def test_tab(delimiter: str) -> None:
    assert records("a\tb\n1,5\t2\n", delimiter=delimiter)[0].fields == {"a": "1,5", "b": "2"}


def test_whitespace() -> None:
    text = " customer_id  date number\tvalue\r\n\r\n 00001 19970101  1   11.77\r\n 00002 19970112 1\r\n"
    found = records(text, delimiter="whitespace")
    assert found[0] == Record(
        3, 1, " 00001 19970101  1   11.77",
        {"customer_id": "00001", "date": "19970101", "number": "1", "value": "11.77"},
    )  # fmt: skip
    assert found[1][:4] == (4, 2, " 00002 19970112 1", None)
    assert found[1].error == "the row has 3 values for 4 columns"


def test_columns_given_for_a_file_without_header() -> None:
    assert records("1,2\n", columns=["a", "b"])[0].fields == {"a": "1", "b": "2"}


def test_columns_without_a_name_get_their_number() -> None:
    """pandas writes its index so."""
    assert records(",a\n0,x\n")[0].fields == {"column_1": "0", "a": "x"}


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("", {}, "standard input is empty"),
        ("\n\n", {}, "standard input is empty"),
        ("a,b, a\n1,2,3\n", {}, "has the column 'a' more than once"),
        ("1,2\n", {"columns": ["a", "a"]}, "has the column 'a' more than once"),
        ("1,2\n", {"columns": ["a", ""]}, "--columns has an empty name"),
        (b"a,\xff\n", {}, "the header is not UTF-8"),
        ('a,"b\n1,2\n', {}, "the header opens a quote that is never closed"),
        ("a,b\r1,2\r", {}, "the header has a carriage return in it"),
    ],
)
def test_what_is_wrong_with_the_whole_file(data: str | bytes, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        records(data, **options)
    assert message in str(caught.value)


cells = st.text(st.sampled_from('ab,;"\n\r ä\\'), max_size=4)


@given(st.lists(st.tuples(cells, cells, st.booleans()), max_size=8))
def test_what_a_careful_writer_writes_is_read(rows: list[tuple[str, str, bool]]) -> None:
    lines = [",".join('"' + cell.replace('"', '""') + '"' for cell in row[:2]) for row in rows]
    found = records("a,b\n" + "\n".join(lines))
    assert [r.fields for r in found] == [{"a": a, "b": b} for a, b, _ in rows]
    assert [r.raw for r in found] == lines
    assert [r.row for r in found] == list(range(1, len(rows) + 1))
