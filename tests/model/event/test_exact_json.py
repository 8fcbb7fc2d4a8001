"""JSON is read strictly and written digit for digit."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.model.event.exact_json import document, metadata_json, parse_json_line, readable, readable_exactly

numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)


@pytest.mark.slow
@given(numbers)
def test_numbers_keep_value_and_digits(text: str) -> None:
    """The value, and the digits after the point, which jsonb keeps too: 1.10 is not written as 1.1."""
    written = metadata_json(parse_json_line(f'{{"a": {text}}}'))[5:-1]
    as_read, as_written = Decimal(text), Decimal(written)
    assert as_written == as_read
    assert after_point(as_written) == after_point(as_read)


@given(numbers)
def test_readers_see_each_digit(text: str) -> None:
    """Of what jsonb stores: it knows no exponent."""
    stored = f"{Decimal(text):f}"
    written = document({"a": [readable_exactly(stored)]}, str, indent=2)
    assert Decimal(json.loads(written, parse_float=str, parse_int=str)["a"][0]) == Decimal(stored)
    assert stored in written or Decimal(text).adjusted() > 1000 or Decimal(text) == 0


def test_numbers_that_json_has_no_form_for_are_texts() -> None:
    tiny = Decimal("1e-1001")
    assert document([Decimal("NaN"), Decimal("1.10"), tiny, "1.10"], str) == f'["NaN", 1.10, "{tiny}", "1.10"]'


def after_point(number: Decimal) -> int:
    return max(0, -int(number.as_tuple().exponent))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    )
)
def test_round_trip(value: Any) -> None:
    text = metadata_json({"a": value, "exact": Decimal("1.10")})
    assert text == metadata_json({"a": value, "exact": 0}).removesuffix("0}") + "1.10}"
    assert json.loads(text)["a"] == value
    assert parse_json_line(text)["a"] == value


def test_integers_longer_than_python_reads() -> None:
    digits = "7" * 5000
    assert metadata_json(parse_json_line(f'{{"a": {digits}, "b": 1, "c": 1.5}}')) == f'{{"a":{digits},"b":1,"c":1.5}}'
    assert metadata_json({"a": 10**5000}) == '{"a":1' + "0" * 5000 + "}"


@pytest.mark.parametrize(
    ("text", "value"), [("1e3", 1000), ("0e9", 0), ("-0", 0), ("1.5e1", 15), ("1E2", 100), ("-2e0", -2)]
)
def test_whole_numbers_with_an_exponent_are_integers(text: str, value: int) -> None:
    read = parse_json_line(f'{{"a": {text}}}')["a"]
    assert (type(read), read) == (int, value)


def test_floats_stay_floats_where_nothing_is_lost() -> None:
    assert {key: type(value) for key, value in parse_json_line('{"a": 0.1, "b": 0.10}').items()} == {
        "a": float,
        "b": Decimal,
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 1}', "has the key 'a' twice"),
        ('[{"b": {"a": 1, "\\u0061": 1}}]', "has the key 'a' twice"),
        ('{"a": NaN}', "holds NaN"),
        ('{"a": [-Infinity]}', "holds -Infinity"),
        ('{"a": 1e99999999999999999999}', "out of range"),
        ('{"a": "\t"}', "is not valid JSON: Invalid control character at (column 8)"),
        ("{'a': 1}", "is not valid JSON"),
        ('{"a": 1} {}', "is not valid JSON: Extra data (column 10)"),
        ("", "is not valid JSON"),
        ("[1]", "must be a JSON object, not an array"),
        ("null", "must be a JSON object, not null"),
        ("[" * 200_000, ""),
        ('{"a": ' + "7" * 5000 + ', "b": 1, "b": 1}', "has the key 'b' twice"),
    ],
)
def test_refuses(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_json_line(text)
    assert reason in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), Decimal("Infinity"), {1, 2}, b"a", object()])
def test_writes_nothing_that_is_not_json(value: object) -> None:
    with pytest.raises(TypeError):
        metadata_json({"a": value})


def test_every_kind_beside_a_decimal() -> None:
    value: dict[str, Any] = {
        "d": Decimal("1E+2"),
        "n": None,
        "t": True,
        "f": False,
        "x": 1e-7,
        "l": (1, "ä\n"),
        "o": {},
    }
    assert metadata_json(value) == '{"d":1E+2,"n":null,"t":true,"f":false,"x":1e-07,"l":[1,"ä\\n"],"o":{}}'


def test_brackets_in_a_text_nest_nothing() -> None:
    """An error that quotes what an event said, in the evidence of an incident."""
    quoting = {"error": 'no number: "' + "[" * 3000 + "\\", "also": ["{" * 600]}
    assert readable(json.dumps(quoting)) == quoting


def test_what_is_too_deep_to_be_written_again_remains_text() -> None:
    deep = '{"a": "]]]", "b": ' + "[" * 3000 + "]" * 3000 + "}"
    assert readable(deep) == deep
