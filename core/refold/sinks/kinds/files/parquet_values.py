"""Values of Postgres as Parquet has them, and back.

| SQL type | Parquet |
|---|---|
| smallint, integer, bigint | int16, int32, int64 |
| numeric(p,s) up to 76 digits | decimal(p,s) |
| numeric without limits | string, since a decimal needs a scale |
| real, double precision | float, double |
| boolean, date, bytea | bool, date32, binary |
| timestamp, timestamptz | timestamp in microseconds, without a zone and in UTC |
| one-dimensional arrays of these | list |
| anything else (text, uuid, jsonb, time, interval, …) | string, as Postgres writes it |

A value comes back as Postgres writes it with refold's settings (ISO, UTC, hexadecimal bytea), so the text is the same.
Parquet has no infinite dates and no years beyond 1 to 9999, and its decimals have no NaN: those are refused.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from refold.sinks.kinds.files.array_text import array_text, elements
from refold.sinks.kinds.files.column_kinds import ColumnKind
from refold.sinks.kinds.files.float_text import float_text

MOST_DIGITS = 76
"""Digits of the longest decimal of Arrow."""
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_DAY_ZERO = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True)
class Codec:
    """How values of a column are stored.

    Args:
        type: the Arrow type.
        encode: turns the text of a value into what Arrow takes; raises ValueError or ArithmeticError.
        decode: turns an Arrow array into the texts of its values, None for NULL.
        limits: what the type cannot hold, for the message.
    """

    type: Any
    encode: Callable[[str], Any]
    decode: Callable[[Any], list[str | None]]
    limits: str = "and is not of this type"


def codec_of(kind: ColumnKind) -> Codec:
    """Return the codec for a type of column; it needs pyarrow."""
    if kind.is_array:
        return _list_of(codec_of(kind.element))
    pa = importlib.import_module("pyarrow")
    if kind.name in _INTEGERS:
        return Codec(getattr(pa, _INTEGERS[kind.name])(), int, partial(_each, str))
    if (limits := kind.decimal) is not None and limits[0] <= MOST_DIGITS:
        precision, scale = limits
        decimal = pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)
        back = partial(_each, partial(_decimal_text, shown=max(kind.modifiers[1], 0) if kind.modifiers[1:] else 0))
        return Codec(decimal, _decimal, back, "which a Parquet decimal cannot hold")
    if kind.name == "double precision":
        return Codec(pa.float64(), float, partial(_each, float_text))
    if kind.name == "real":
        return Codec(pa.float32(), float, partial(_each, partial(float_text, bits=24)))
    if kind.name == "boolean":
        return Codec(pa.bool_(), _boolean, partial(_each, _boolean_text))
    if kind.name == "date":
        return Codec(pa.date32(), _days, _dates, "which a Parquet date cannot hold")
    if kind.name == "timestamp without time zone":
        return Codec(pa.timestamp("us"), _microseconds, partial(_timestamps, ""), _NO_TIMESTAMP)
    if kind.name == "timestamp with time zone":
        return Codec(pa.timestamp("us", "UTC"), _microseconds, partial(_timestamps, "+00"), _NO_TIMESTAMP)
    if kind.name == "bytea":
        return Codec(pa.binary(), _bytes, partial(_each, _bytea))
    return Codec(pa.string(), str, partial(_each, str))


_INTEGERS = {"smallint": "int16", "integer": "int32", "bigint": "int64"}
_NO_TIMESTAMP = "which a Parquet timestamp cannot hold"
_HEX = re.compile(r"\\x((?:[0-9a-f]{2})*)")


def _list_of(element: Codec) -> Codec:
    pa = importlib.import_module("pyarrow")

    def encode(text: str) -> list[Any]:
        return [None if one is None else element.encode(one) for one in elements(text)]

    def decode(array: Any) -> list[str | None]:
        dense = array.drop_null()
        texts = iter(element.decode(dense.flatten()))
        lengths = importlib.import_module("pyarrow.compute").list_value_length(array).to_pylist()
        return [None if length is None else array_text([next(texts) for _ in range(length)]) for length in lengths]

    return Codec(pa.list_(element.type), encode, decode, "and only lists of one dimension, from 1 on, can be stored")


def _each(convert: Callable[[Any], str], array: Any) -> list[str | None]:
    return [None if one is None else convert(one) for one in array.to_pylist()]


def _decimal(text: str) -> Decimal:
    value = Decimal(text)
    if not value.is_finite():
        raise ValueError
    return value


def _decimal_text(value: Decimal, *, shown: int) -> str:
    return f"{value:.{shown}f}"


def _boolean(text: str) -> bool:
    if text not in ("t", "f", "true", "false"):
        raise ValueError
    return text[0] == "t"


def _boolean_text(value: bool) -> str:
    return "t" if value else "f"


def _days(text: str) -> int:
    return date.fromisoformat(text).toordinal() - _DAY_ZERO


def _dates(array: Any) -> list[str | None]:
    days = array.view(importlib.import_module("pyarrow").int32()).to_pylist()
    return [None if one is None else date.fromordinal(one + _DAY_ZERO).isoformat() for one in days]


def _microseconds(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return (moment - _EPOCH) // _MICROSECOND


def _timestamps(zone: str, array: Any) -> list[str | None]:
    numbers = array.view(importlib.import_module("pyarrow").int64()).to_pylist()
    return [None if one is None else _moment(one) + zone for one in numbers]


def _moment(microseconds: int) -> str:
    text = (_EPOCH + timedelta(microseconds=microseconds)).isoformat(" ")
    return text.rstrip("0") if "." in text else text


def _bytes(text: str) -> bytes:
    found = _HEX.fullmatch(text)
    if found is None:
        raise ValueError
    return bytes.fromhex(found[1])


def _bytea(value: bytes) -> str:
    return "\\x" + value.hex()
