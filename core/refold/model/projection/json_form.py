"""Values of models in the form that JSON has for them."""

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
    """Whether a value becomes an object or an array."""
    if isinstance(value, str | bytes | bytearray | memoryview | range | type):
        return False
    return isinstance(value, _STRUCTURES) or dataclasses.is_dataclass(value)


def json_form(value: Any) -> Any:
    """Models and dataclasses as objects, tuples and sets as arrays, enums by value, times in ISO 8601.

    A set is sorted: its own order is another one in every process. Decimals remain, to be written digit for digit.

    Raises:
        ValueError: JSON has no form for it.
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
    raise ValueError(f"a key of JSON is text, not {type(key).__name__}")
