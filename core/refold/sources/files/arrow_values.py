"""Values of Arrow columns as JSON has them, with every digit.

A time of day, a date and a timestamp become ISO 8601 text; a timestamp with a time zone is in UTC and ends with Z, and
one without has no offset. Binary data become hexadecimal digits after `\\x`, as in PostgreSQL.
"""

from __future__ import annotations

import importlib
import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
"""Decimal places of a second by unit."""
_DAY_S = 86_400


class Unreadable(Exception):
    """A column or value that has no form in an event; the text completes "the column …"."""


def values_of(array: Any) -> list[Any]:
    """Return the values of a column, with None for null.

    Args:
        array: an Arrow array.

    Raises:
        Unreadable: a value has no form in an event.
        UnicodeDecodeError: a text is not UTF-8.
    """
    types = _types()
    kind = array.type
    if types.is_dictionary(kind):
        return values_of(array.dictionary_decode())
    if isinstance(kind, _pyarrow().BaseExtensionType):
        if kind.extension_name == "arrow.uuid":
            return [None if one is None else _uuid(one) for one in array.storage.to_pylist()]
        return values_of(array.storage)
    if types.is_struct(kind):
        return _structs(array)
    if types.is_map(kind):
        return _maps(array)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _lists(array)
    if types.is_temporal(kind):
        return _temporal(array)
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return [None if one is None else "\\x" + one.hex() for one in array.to_pylist()]
    if types.is_decimal(kind) and kind.scale <= 0:
        return [None if one is None else int(one) for one in array.to_pylist()]
    return array.to_pylist()  # type: ignore[no-any-return]


def check_type(kind: Any) -> None:
    """Refuse the type of a column that `values_of` cannot read.

    Args:
        kind: an Arrow type.

    Raises:
        Unreadable: the type, or one within it, is unknown.
    """
    types = _types()
    if types.is_dictionary(kind):
        return check_type(kind.value_type)
    if isinstance(kind, _pyarrow().BaseExtensionType):
        return check_type(kind.storage_type)
    if types.is_struct(kind):
        names = [kind.field(place).name for place in range(kind.num_fields)]
        if len(set(names)) < len(names):
            raise Unreadable("has an object with the same key twice")
    inner = [kind.field(place).type for place in range(kind.num_fields)] if types.is_nested(kind) else []
    if types.is_nested(kind) and not _is_known_nested(types, kind):
        raise Unreadable(f"has the type {kind}, which refold does not read")
    for one in inner:
        check_type(one)
    plain = (
        types.is_null, types.is_boolean, types.is_integer, types.is_floating, types.is_decimal, types.is_string,
        types.is_large_string, types.is_binary, types.is_large_binary, types.is_fixed_size_binary,
        types.is_timestamp, types.is_date, types.is_time, types.is_duration,
    )  # fmt: skip
    if not types.is_nested(kind) and not any(is_it(kind) for is_it in plain):
        raise Unreadable(f"has the type {kind}, which refold does not read")
    return None


def _is_known_nested(types: Any, kind: Any) -> bool:
    known = (types.is_struct, types.is_map, types.is_list, types.is_large_list, types.is_fixed_size_list)
    return any(is_it(kind) for is_it in known)


def _structs(array: Any) -> list[dict[str, Any] | None]:
    names = [array.type.field(place).name for place in range(array.type.num_fields)]
    columns = [values_of(column) for column in array.flatten()]
    valid = array.is_valid().to_pylist()
    return [
        {name: column[place] for name, column in zip(names, columns, strict=True)} if is_valid else None
        for place, is_valid in enumerate(valid)
    ]


def _lists(array: Any) -> list[list[Any] | None]:
    lengths = _pyarrow_compute().list_value_length(array).to_pylist()
    # Null lists hold nothing, also where the buffer has values below them.
    values = iter(values_of(array.drop_null().flatten()))
    return [None if length is None else [next(values) for _ in range(length)] for length in lengths]


def _maps(array: Any) -> list[dict[str, Any] | None]:
    dense = array.drop_null()
    ends = dense.offsets.to_pylist()
    first, count = ends[0], ends[-1] - ends[0]
    keys, values = (values_of(one.slice(first, count)) for one in (dense.keys, dense.items))
    found = iter(
        [
            _object(keys[begin - first : end - first], values[begin - first : end - first])
            for begin, end in itertools.pairwise(ends)
        ]
    )
    return [next(found) if is_valid else None for is_valid in array.is_valid().to_pylist()]


def _object(keys: list[Any], values: list[Any]) -> dict[str, Any]:
    names = [str(key) for key in keys]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise Unreadable(f"has the key {twice[:40]!r} twice in one object")
    return dict(zip(names, values, strict=True))


def _temporal(array: Any) -> list[Any]:
    types, kind = _types(), array.type
    if types.is_date32(kind) or types.is_time32(kind):
        numbers = array.view(_pyarrow().int32()).to_pylist()
    else:
        numbers = array.view(_pyarrow().int64()).to_pylist()
    if types.is_date(kind):
        per_day = 1 if types.is_date32(kind) else _DAY_S * 1000
        return [None if one is None else _date(one // per_day) for one in numbers]
    digits = _DIGITS[kind.unit]
    if types.is_duration(kind):
        return [None if one is None else Decimal(one).scaleb(-digits) for one in numbers]
    if types.is_time(kind):
        return [None if one is None else _moment(one, digits)[11:] for one in numbers]
    end = "" if kind.tz is None else "Z"
    return [None if one is None else _moment(one, digits) + end for one in numbers]


def _date(days: int) -> str:
    return _moment(days * _DAY_S, 0)[:10]


def _moment(number: int, digits: int) -> str:
    """Return a count of units since 1970 as ISO 8601 with all its digits.

    Args:
        number: the count.
        digits: decimal places of a second in the unit.
    """
    seconds, rest = divmod(number, 10**digits)
    try:
        text = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S").zfill(19)
    except OverflowError:
        raise Unreadable("holds a time that is out of range: years 1 to 9999 UTC") from None
    return f"{text}.{rest:0{digits}}" if rest else text


def _uuid(data: bytes) -> str:
    text = data.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _pyarrow() -> Any:
    return importlib.import_module("pyarrow")


def _pyarrow_compute() -> Any:
    return importlib.import_module("pyarrow.compute")


def _types() -> Any:
    return importlib.import_module("pyarrow.types")
