"""The SQL type of the column for a field of a model, from the field's annotation."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections import deque
from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, TypeGuard, Union
from uuid import UUID

from pydantic import BaseModel

_TYPES: dict[type, str] = {
    bool: "boolean",
    int: "bigint",
    float: "double precision",
    Decimal: "numeric",
    str: 'text COLLATE "C"',
    bytes: "bytea",
    datetime: "timestamptz",
    date: "date",
    time: "time",
    timedelta: "interval",
    UUID: "uuid",
}
_STRUCTURES = (BaseModel, dict, list, tuple, set, frozenset, deque, Mapping, Sequence, Set)
"""Types whose values become jsonb, as those of dataclasses do."""


def column_type(annotation: Any) -> str | None:
    """Return the SQL type for an annotation; None if there is none, or more than one."""
    found = {_type_of(kind) for kind in _kinds(annotation)}
    return found.pop() if len(found) == 1 else None


def holds_enum(annotation: Any) -> bool:
    """Return whether the column itself holds values of an enum; enums within jsonb do not count."""
    return any(_is_enum(kind) for kind in _kinds(annotation))


def optional(annotation: Any) -> Any:
    """Return the annotation without `| None`, and without Annotated, NewType and type aliases around it."""
    parts = [part for part in _alternatives(annotation) if part is not type(None)]
    return parts[0] if len(parts) == 1 else annotation


def _alternatives(annotation: Any) -> Iterator[Any]:
    """Yield the parts of a union, each without Annotated, NewType and type aliases around it."""
    while True:
        if typing.get_origin(annotation) is Annotated:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            break
    if typing.get_origin(annotation) in (Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from _alternatives(part)
    else:
        yield annotation


def _kinds(annotation: Any) -> Iterator[Any]:
    """Yield the classes that values may have, except NoneType."""
    for part in _alternatives(annotation):
        if typing.get_origin(part) is Literal:
            yield from {type(value) for value in typing.get_args(part)} - {type(None)}
        elif part is not type(None):
            yield typing.get_origin(part) or part


def _is_enum(kind: Any) -> TypeGuard[type[Enum]]:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _type_of(kind: Any) -> str | None:
    if not isinstance(kind, type):
        return None
    if _is_enum(kind):
        values = {_type_of(type(member.value)) for member in kind}
        return values.pop() if len(values) == 1 else None
    if kind in _TYPES:
        return _TYPES[kind]
    if issubclass(kind, str):
        return _TYPES[str]
    if issubclass(kind, bytes | bytearray | memoryview | range):
        return None
    return "jsonb" if issubclass(kind, _STRUCTURES) or dataclasses.is_dataclass(kind) else None
