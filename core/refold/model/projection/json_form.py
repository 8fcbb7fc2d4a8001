"""Conversion of models' values to their JSON form."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping, Sequence, Set
from decimal import Decimal
from enum import Enum
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from refold.model.event.exact_json import metadata_json

_STRUCTURES = (BaseModel, Mapping, list, tuple, deque, Set, Sequence)


def is_structure(value: object) -> bool:
    """Return whether a value becomes a JSON object or array."""
    if isinstance(value, str | bytes | bytearray | memoryview | range | type):
        return False
    return isinstance(value, _STRUCTURES) or dataclasses.is_dataclass(value)


def json_form(value: Any) -> Any:
    """Return the JSON form of a value: models as objects, tuples as arrays, enums by value, times in ISO 8601.

    A dataclass becomes an object. A set becomes a sorted array, because its own order differs between processes.
    A Decimal stays a Decimal, so that it is written digit for digit.

    Raises:
        ValueError: JSON has no form for the value.
    """
    if value is None or type(value) in (bool, int, float, str, Decimal):
        return value
    if isinstance(value, Enum):
        return json_form(value.value)
    if isinstance(value, BaseModel):
        return json_form(value.model_dump())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: json_form(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_key(key): json_form(inner) for key, inner in value.items()}
    if isinstance(value, Set):
        return sorted(map(json_form, value), key=lambda inner: metadata_json({"": inner}))
    if is_structure(value):
        return [json_form(inner) for inner in value]
    return to_jsonable_python(value)


def _key(key: Any) -> str:
    form = json_form(key)
    if isinstance(form, str):
        return form
    if isinstance(form, bool) or form is None:
        return {None: "null", True: "true", False: "false"}[form]
    if isinstance(form, int | float | Decimal):
        return str(form)
    raise ValueError(f"a key of a JSON object must be text, not {type(key).__name__}")
