"""What programs write into CSV besides the values is understood when the user, or the file, says so."""

import io
from pathlib import Path
from typing import Any

import pytest

from refold.errors import InputError
from refold.model.event.source_event import SourceEvent
from refold.sources.files.mapper import Mapper
from refold.sources.files.mapping import Mapping
from refold.sources.files.readers import Record, open_source


def records(data: str | bytes, **options: Any) -> list[Record]:
    encoded = data.encode() if isinstance(data, str) else data
    with open_source("-", stdin=io.BytesIO(encoded), **{"format": "csv", **options}) as source:
        return list(source)


def test_a_null_is_absent() -> None:
    text = "id,action,ts,user_id,note\na,v,0,NULL,\\N\nb,v,0,null,x\nc,NULL,0,u,\n"
    with open_source("-", format="csv", stdin=io.BytesIO(text.encode()), nulls=["NULL", "\\N"]) as source:
        mapper = Mapper(Mapping.parse(ts_format="epoch_s"), source)
        found = [(mapper(record), record.raw) for record in source]
    assert found == [
        (SourceEvent(id="a", action="v", ts=0), "a,v,0,NULL,\\N"),  # type: ignore[arg-type]
        (SourceEvent(id="b", action="v", ts=0, user_id="null", metadata={"note": "x"}), "b,v,0,null,x"),  # type: ignore[arg-type]
        ("action: the column 'action' is empty", "c,NULL,0,u,"),
    ]


def test_a_null_is_a_whole_value_and_not_a_name_of_a_column() -> None:
    [found] = records("NULL,b\nNULL,NULLS\n", nulls=["NULL"])
    assert found.fields == {"NULL": "", "b": "NULLS"}


def test_lines_before_the_header() -> None:
    text = 'Report of "March\n\na,b\n1,2\n'
    assert records(text, skip_lines=2) == [Record(4, 1, "1,2", {"a": "1", "b": "2"})]
    assert records("\ufeffx\na\n1\n", skip_lines=1) == [Record(3, 1, "1", {"a": "1"})]
    assert records('# a file\n{"a": 1}\n', skip_lines=1, format="jsonl")[0].line == 2
    with pytest.raises(InputError, match="standard input is empty"):
        records("a\n1\n", skip_lines=9)


@pytest.mark.parametrize("first", ["sep=;\r\n", '"sep=;"\n', "SEP=;\n", "\ufeffsep=;\r\n", "\nsep=;\n"])
def test_the_line_of_excel_sets_the_delimiter(first: str) -> None:
    found = records(first + "a;b,c\n1;2\n")
    assert [(r.line, r.row, r.fields) for r in found] == [(first.count("\n") + 2, 1, {"a": "1", "b,c": "2"})]


def test_the_line_of_excel_beside_options(tmp_path: Path) -> None:
    assert records("sep=\t\na\tb\n1\t2\n")[0].fields == {"a": "1", "b": "2"}
    # What the user says counts, and the line is no header.
    assert records("sep=;\na,b\n1,2\n", delimiter=",")[0].fields == {"a": "1", "b": "2"}
    assert records("sep=;\n1;2\n", columns=["a", "b"]) == [Record(2, 1, "1;2", {"a": "1", "b": "2"})]
    assert records("title\nsep=;\na;b\n1;2\n", skip_lines=1)[0].fields == {"a": "1", "b": "2"}
    (tmp_path / "x.tsv").write_text("sep=,\na,b\n1,2\n")
    with open_source(tmp_path / "x.tsv") as source:
        assert next(iter(source)).fields == {"a": "1", "b": "2"}


@pytest.mark.parametrize("first", ["sep=;,x\n", "sep=\n", "sep\n", "xsep=;\n", "sep=ä\n", 'sep="\n'])
def test_other_first_lines_are_headers(first: str) -> None:
    with open_source("-", format="csv", stdin=io.BytesIO(first.encode())) as source:
        assert source.columns == tuple(first.strip().split(","))


def test_trim() -> None:
    text = ' a ,"b" \n 1 , "x, y" \n\t2\t,  \n3," z "\n'
    assert [r.fields for r in records(' a , b\n 1 , "x, y"\n\t2\t,  \n3," z "\n', trim=True)] == [
        {"a": "1", "b": "x, y"},
        {"a": "2", "b": ""},
        {"a": "3", "b": "z"},
    ]
    # Without the option, blanks are part of the values.
    assert records("a,b\n 1 ,2 \n")[0].fields == {"a": " 1 ", "b": "2 "}
    assert records("a,b\n NULL ,2\n", trim=True, nulls=["NULL"])[0].fields == {"a": "", "b": "2"}
    # A blank after a closed quote is refused as before, and costs that row only.
    with pytest.raises(InputError, match="the header is not valid CSV"):
        records(text, trim=True)


def test_json_has_no_such_habits() -> None:
    for options in ({"nulls": ["NULL"]}, {"trim": True}):
        with pytest.raises(InputError, match="--null and --trim are for CSV"):
            records("{}", format="jsonl", **options)
