"""Ids are the same on every run, and different for what is different."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.errors import InputError
from refold.sources.files.identity import IdFrom, joined_id, row_id, source_name


def test_parse() -> None:
    assert IdFrom.parse("row") == IdFrom(())
    assert IdFrom.parse("order, line") == IdFrom(("order", "line"))
    assert IdFrom.parse("row,line") == IdFrom(("row", "line"))
    for text in ("", "a,,b", ","):
        with pytest.raises(InputError, match="empty name"):
            IdFrom.parse(text)


@pytest.mark.parametrize(
    ("path", "name", "expected"),
    [
        ("/data/shop.csv", None, "shop.csv"),
        ("shop.csv.gz", None, "shop.csv"),
        ("SHOP.CSV.GZ", None, "SHOP.CSV"),
        ("shop.csv.gz.gz", None, "shop.csv"),
        ("shop.csv.zlib", None, "shop.csv"),
        ("/data/shop.csv", "web", "web"),
        ("-", None, "-"),
        ("-", "web", "web"),
    ],
)
def test_source_name(path: str, name: str | None, expected: str) -> None:
    assert source_name(path, name) == expected


@pytest.mark.parametrize("name", ["", "a\0", "x" * 201, "\udcff"])
def test_names_that_cannot_be_in_an_id(name: str) -> None:
    with pytest.raises(InputError) as caught:
        source_name("x.csv", name)
    assert "--source" in str(caught.value.remedy)


def test_row_id() -> None:
    assert row_id("shop.csv", 7) == "shop.csv:7"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a", "b"], "a:b"),
        (["a:b"], "a%3Ab"),
        (["100%", ""], "100%25:"),
        (["%3A", ":"], "%253A:%3A"),
        ([7, Decimal("1.10")], "7:1.10"),
    ],
)
def test_joined_id(values: list[object], expected: str) -> None:
    columns = tuple("abc"[: len(values)])
    assert joined_id(columns, dict(zip(columns, values, strict=True))) == expected


@given(st.lists(st.lists(st.text(st.sampled_from(":%3A2 5a")), min_size=1, max_size=3), unique_by=tuple))
def test_different_values_give_different_ids(rows: list[list[str]]) -> None:
    rows = [row for row in rows if any(row)]
    ids = {joined_id(columns := tuple("abc"[: len(row)]), dict(zip(columns, row, strict=True))) for row in rows}
    assert len(ids) == len(rows)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"a": "x"}, "'b' (of --id-from) has no value"),
        ({"a": "x", "b": None}, "'b' (of --id-from) has no value"),
        ({"a": "x", "b": True}, "is neither text nor a number"),
        ({"a": "x", "b": ["y"]}, "is neither text nor a number"),
        ({"a": "", "b": ""}, "a, b (of --id-from) are empty"),
    ],
)
def test_values_that_name_nothing(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        joined_id(("a", "b"), fields)
    assert reason in str(caught.value)
