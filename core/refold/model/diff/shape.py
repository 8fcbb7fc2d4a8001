"""The rows of a build as analysts see them, and how the columns of two builds differ. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from refold.model.stream.page_sql import Stream
from refold.model.stream.slices import Slicing

NUMBERS = ("smallint", "integer", "bigint", "numeric", "real", "double precision")
"""Types whose values are compared with each other and subtracted."""


@dataclass(frozen=True, slots=True)
class Output:
    """A column of a build's rows: its name, its SQL over a row of the table, and its type as SQL."""

    name: str
    sql: str
    type: str

    @property
    def is_number(self) -> bool:
        """Return whether values have differences."""
        return self.type.partition("(")[0] in NUMBERS


@dataclass(frozen=True, slots=True)
class Shown:
    """What a build shows to analysts.

    Args:
        table: its table, qualified, as SQL.
        key: the columns that identify a row, or the rows that are computed together.
        unique: whether a key has at most one row.
        columns: the columns of the view, in order.
        having: a condition on rows of the table; analysts see the rows for which it holds.
        hashed: the columns of the table that its checksums cover, in order, with their types.
        slicing: how the table is divided into slices.
        event_grain: whether a row is an event, so that the row has coordinates.
        stream: the relation that the build reads.
        key_sql: the key over a row of the stream, as SQL.
        where: the query's WHERE over a row of the stream.
    """

    table: str
    key: tuple[Output, ...]
    unique: bool
    columns: tuple[Output, ...]
    having: str | None
    hashed: tuple[tuple[str, str], ...]
    slicing: Slicing
    event_grain: bool
    stream: Stream
    key_sql: tuple[str, ...] = ()
    where: str | None = None

    @property
    def types(self) -> dict[str, str]:
        """Return the types of the view's columns by name."""
        return {column.name: column.type for column in self.columns}


@dataclass(frozen=True, slots=True)
class Retyped:
    """A column whose type differs."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Shape:
    """How the columns of two builds differ.

    Args:
        added: the columns, with types, that only the second build has.
        removed: the columns, with types, that only the first build has.
        retyped: the columns whose type differs.
        key_before: the key of the first build, if the keys differ; rows cannot be compared then.
        key_after: the key of the second build, if the keys differ.
    """

    added: tuple[tuple[str, str], ...] = ()
    removed: tuple[tuple[str, str], ...] = ()
    retyped: tuple[Retyped, ...] = ()
    key_before: tuple[str, ...] = ()
    key_after: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Return whether there is no difference."""
        return self == Shape()

    @property
    def comparable(self) -> bool:
        """Return whether rows can be paired by their keys."""
        return self.key_before == self.key_after


def shape_of(before: Shown, after: Shown) -> Shape:
    """Return how the columns of two builds differ."""
    old, new = before.types, after.types
    keys = tuple(
        tuple(sorted(f"{one.name} {one.type}" for one in side.key)) + (() if side.unique else ("(not unique)",))
        for side in (before, after)
    )
    differs = keys[0] != keys[1]
    return Shape(
        tuple((name, kind) for name, kind in new.items() if name not in old),
        tuple((name, kind) for name, kind in old.items() if name not in new),
        tuple(Retyped(name, kind, new[name]) for name, kind in old.items() if new.get(name, kind) != kind),
        keys[0] if differs else (),
        keys[1] if differs else (),
    )


def compared_columns(before: Shown, after: Shown) -> list[tuple[Output, Output]]:
    """Return the columns, besides the key, whose values can be compared: of the same type, or both numbers."""
    new = {column.name: column for column in after.columns}
    keys = {one.name for one in before.key}
    return [
        (one, new[one.name])
        for one in before.columns
        if one.name in new
        and one.name not in keys
        and (one.type == new[one.name].type or (one.is_number and new[one.name].is_number))
    ]


def sums_tell(before: Shown, after: Shown) -> bool:
    """Return whether equal checksums of a slice mean that analysts see equal rows in it.

    The checksums cover the tables, so what the views make of the rows must be the same too.
    """
    return (
        before.hashed == after.hashed
        and before.columns == after.columns
        and before.key == after.key
        and before.having == after.having
        and same_slices(before, after)
    )


def same_slices(before: Shown, after: Shown) -> bool:
    """Return whether a row with the same key is in the same slice of both builds."""
    return (before.slicing.kind, before.slicing.row) == (after.slicing.kind, after.slicing.row)
