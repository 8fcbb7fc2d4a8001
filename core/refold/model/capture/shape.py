"""What a capture needs to know of its table, as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a captured table.

    Args:
        name: its name.
        type: its type, as SQL.
        not_null: whether it refuses NULL.
    """

    name: str
    type: str
    not_null: bool


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table as the catalog describes it.

    Args:
        oid: its number in the catalog.
        schema: its schema.
        name: its name.
        kind: 'r' for a table, 'p' for a partitioned one, and other letters of pg_class.relkind.
        owner: the role that owns it.
        columns: its columns, in order.
        primary_key: columns of the primary key; empty without one.
        unique: columns of each unique index that holds every row.
        partitions: all tables below it, as schema and name.
        of: schema and name of the partitioned table that it is a part of, if any.
        temporary: whether it belongs to a session.
    """

    oid: int
    schema: str
    name: str
    kind: str
    owner: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    unique: tuple[tuple[str, ...], ...]
    partitions: tuple[tuple[str, str], ...]
    of: tuple[str, str] | None
    temporary: bool

    def column(self, name: str) -> Column | None:
        """Return a column by its name."""
        return next((one for one in self.columns if one.name == name), None)

    def recorded(self) -> list[str]:
        """Return names and types of all columns, as they are recorded for the comparison with a later state."""
        return [f"{one.name} {one.type}" for one in self.columns]
