"""A first draft of a contract, from what events have. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

MOST_VALUES = 10
"""Most values of a string that are taken for an enum."""
SEEN_EACH = 20
"""How often each value of an enum must have been seen, on average."""


@dataclass(frozen=True, slots=True)
class FieldSeen:
    """A field of the metadata of some events.

    Args:
        name: the field.
        type: a JSON type that it had.
        events: how many events had it with this type.
        whole: whether all numbers were whole.
        distinct: how many values it had.
        values: some of them, if they are few and short strings.
    """

    name: str
    type: str
    events: int
    whole: bool
    distinct: int
    values: Sequence[str]


@dataclass(frozen=True, slots=True)
class Seen:
    """The events of a version of an action, as the log has them.

    Args:
        action: the action.
        version: the version.
        events: how many were looked at.
        first: when the first of them was recorded.
        last: when the last was.
        fields: their fields, by name.
    """

    action: str
    version: int
    events: int
    first: datetime
    last: datetime
    fields: Sequence[FieldSeen]

    @property
    def names(self) -> list[str]:
        """The names of the fields, each once."""
        return list(dict.fromkeys(field.name for field in self.fields))


def draft(seen: Seen) -> dict[str, Any]:
    """Return a contract that all these events keep, as a document for a person to correct."""
    properties: dict[str, Any] = {}
    required = []
    for name in seen.names:
        fields = [field for field in seen.fields if field.name == name]
        properties[name] = _property(fields)
        if sum(field.events for field in fields) == seen.events:
            required.append(name)
    about: dict[str, Any] = {"version": seen.version, "level": "warn"}
    if not seen.action.isidentifier():
        about["action"] = seen.action
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", "x-refold": about, "type": "object"}
    if required:
        document["required"] = required
    return document | {"properties": properties}


def _property(fields: Sequence[FieldSeen]) -> dict[str, Any]:
    types = [_type(field) for field in fields]
    texts = [field for field in fields if field.type == "string"]
    others = [one for one in types if one not in ("string", "null")]
    if texts and not others and _chosen(texts[0]):
        return {"enum": [*sorted(texts[0].values), *([None] if "null" in types else [])]}
    if types == ["null"]:
        # It had no value yet.
        return {}
    return {"type": types[0] if len(types) == 1 else types}


def _type(field: FieldSeen) -> str:
    return "integer" if field.type == "number" and field.whole else field.type


def _chosen(field: FieldSeen) -> bool:
    """Return whether a string seems to be one of a few values."""
    few = 0 < field.distinct <= MOST_VALUES and len(field.values) == field.distinct
    return few and field.events >= SEEN_EACH * field.distinct
