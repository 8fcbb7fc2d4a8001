"""What jsonb would refuse, or print larger than it came, is found before it is sent."""

from decimal import Decimal
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.model.event import jsonb_limits
from refold.model.event.jsonb_limits import MAX_BYTES, MAX_DEPTH, problem


class Colour(IntEnum):
    red = 1


def nested(levels: int, *, lists: bool) -> dict[str, Any]:
    """An object with this many levels, the outermost counted."""
    value: Any = [] if lists else {}
    for _ in range(levels - 2):
        value = [value] if lists else {"a": value}
    return {"a": value}


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"": ""},
        {"a": "\\u0000"},
        {"a": (1, 2), "b": Colour.red},
        {"a": Decimal("1E+1999")},
        {"a": Decimal("1E-1999")},
        {"a": Decimal("0E+400000")},
        {"a": 10**1999},
        {"a": Decimal.from_float(5e-324)},
        {"a": 2**4096},
        {"a": "9" * 5000},
        {"a": [5e-324, 1.7976931348623157e308]},
        nested(MAX_DEPTH, lists=True),
        nested(MAX_DEPTH, lists=False),
        {"a": "x" * (MAX_BYTES - 9)},
    ],
    ids=lambda metadata: repr(metadata)[:40] if type(metadata.get("a")) is not int else "long integer",
)
def test_fits(metadata: dict[str, Any]) -> None:
    assert problem(metadata) is None


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"a": "\0"}, "NUL character (\\u0000), which Postgres cannot store: remove it (at a)"),
        ({"a": [{"b\0": 1}]}, "(at the key b\\x00)"),
        ({"a": ["\udc00"]}, "lone surrogate (\\udc00)"),
        ({"\ud800": 1}, "(at the key \\ud800)"),
        ({"a": float("inf")}, "holds inf"),
        ({"a": Decimal("NaN")}, "holds NaN"),
        ({"a": Decimal("1E+2000")}, "more than 2000 digits"),
        ({"a": Decimal("1E-2000")}, "more than 2000 digits"),
        ({"a": Decimal("0E-2000")}, "more than 2000 digits"),
        ({"a": Decimal("1" * 1000 + "." + "5" * 1001)}, "more than 2000 digits"),
        ({"a": [10**2000]}, "more than 2000 digits"),
        ({"a": -(10**4299)}, "more than 2000 digits"),
        ({"a": 10**5000}, "more than 2000 digits"),
        ({1: 1}, "has a key that is a number"),
        ({"a": {"b": {None: 1}}}, "has a key that is null"),
        ({"a": b"x"}, "holds a Python bytes"),
        (nested(MAX_DEPTH + 1, lists=True), "more than 100 levels deep"),
        (nested(MAX_DEPTH + 1, lists=False), "more than 100 levels deep"),
        (nested(900, lists=False), "more than 100 levels deep"),
        ({"a": "x" * (MAX_BYTES - 8)}, f"larger than {MAX_BYTES} bytes"),
        ({"a": [Decimal("1E+1999")] * 600}, f"larger than {MAX_BYTES} bytes"),
        ({"a": [5e-324] * 3300}, f"larger than {MAX_BYTES} bytes"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_refuses(metadata: dict[str, Any], reason: str) -> None:
    found = problem(metadata)
    assert found is not None
    assert reason in found
    assert len(found) < 200


def test_circular() -> None:
    metadata: dict[str, Any] = {}
    metadata["a"] = metadata
    assert "deep" in str(problem(metadata))


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats()
    | st.decimals(allow_nan=True)
    | st.integers(1990, 2010).map(lambda digits: 10**digits)
    | st.integers(1990, 2010).map(lambda digits: Decimal(f"1.{'1' * digits}"))
    | st.sampled_from(["\0", "\ud800", b""])
)
anything = st.dictionaries(
    st.text() | st.sampled_from(["\0", "\udfff"]),
    st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)


@given(anything)
def test_the_fast_check_agrees_with_the_walk(metadata: dict[str, Any]) -> None:
    assert problem(metadata) == jsonb_limits._find_problem(metadata)
