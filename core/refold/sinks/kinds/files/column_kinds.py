"""What a column's SQL type means for files."""

from __future__ import annotations

import re
from typing import NamedTuple

_ALIASES = {
    "int2": "smallint",
    "int4": "integer",
    "int": "integer",
    "int8": "bigint",
    "float4": "real",
    "float8": "double precision",
    "bool": "boolean",
    "decimal": "numeric",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
    "varchar": "character varying",
    "char": "character",
    "bpchar": "character",
}
_COLLATION = re.compile(r"\s+COLLATE\s+.*", re.IGNORECASE | re.DOTALL)
_MODIFIERS = re.compile(r"\(\s*(-?\d+)\s*(?:,\s*(-?\d+)\s*)?\)")
_ARRAY = re.compile(r"(\s*\[\d*\])+$")


class ColumnKind(NamedTuple):
    """An SQL type in parts.

    Args:
        name: the type's name as `format_type` writes it, without modifiers: `timestamp with time zone`.
        modifiers: the numbers in brackets: `(10, 2)` for `numeric(10,2)`.
        is_array: whether it is an array of this type.
    """

    name: str
    modifiers: tuple[int, ...] = ()
    is_array: bool = False

    @property
    def element(self) -> ColumnKind:
        """Return the kind of an array's elements."""
        return self._replace(is_array=False)

    @property
    def is_json(self) -> bool:
        """Return whether its values are JSON."""
        return not self.is_array and self.name in ("json", "jsonb")

    @property
    def decimal(self) -> tuple[int, int] | None:
        """Return precision and scale of a numeric with limits, as a decimal needs them; None without limits."""
        if self.name != "numeric" or not self.modifiers or self.is_array:
            return None
        precision, scale = (*self.modifiers, 0)[:2]
        # numeric(3,5) holds 0.00123, and numeric(3,-2) holds 12300.
        return (max(precision, scale), scale) if scale >= 0 else (precision - scale, 0)


def kind_of(sql_type: str) -> ColumnKind:
    """Return the kind of an SQL type, such as `numeric(10,2)` or `text[]`. Pure."""
    text = _COLLATION.sub("", sql_type.strip())
    bare = _ARRAY.sub("", text)
    found = _MODIFIERS.search(bare)
    modifiers = tuple(int(one) for one in found.groups() if one is not None) if found else ()
    # A quoted name is a type of the user's own, whatever it looks like.
    name = bare if '"' in bare else " ".join(_MODIFIERS.sub(" ", bare).lower().split())
    return ColumnKind(_ALIASES.get(name, name), modifiers, bare != text)
