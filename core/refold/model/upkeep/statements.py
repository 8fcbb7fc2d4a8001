"""What every kind of upkeep provides, as SQL text with named parameters (psycopg's `%(name)s`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from refold.model.projection.plan import KeyPart
from refold.model.sql_text import EVERYTHING, hash_of, ident, indent, quoted
from refold.model.stream.slices import Slicing
from refold.model.upkeep.names import SLICE


@dataclass(frozen=True, slots=True)
class Relation:
    """A table of a build that must equal a query over the stream.

    Args:
        table: its qualified name.
        columns: all its columns.
        key: the columns that identify a row (or the rows that are computed together).
        key_sql: the same over one row of the stream.
        expected: makes the query for what the table must hold, given a condition on the stream's rows.
        slicing: how it is cut for audits.
        identity: the columns that name a single row in a report, where the key does not.
        guard: condition on a row of the stream without which its key is not evaluated.
        shown: the columns that a report shows of a row, where that is not all of them.
    """

    table: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    key_sql: tuple[str, ...]
    expected: Callable[[str], str]
    slicing: Slicing
    identity: tuple[str, ...] = ()
    guard: str = EVERYTHING
    shown: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """The key's hash over the table's columns: equal for equal keys, by type equality, NULLs included."""
        return hash_of([ident(name) for name in self.key])

    @property
    def stream_hash(self) -> str:
        """The same hash over one row of the stream."""
        hashed = hash_of(self.key_sql)
        return hashed if self.guard == EVERYTHING else f"CASE WHEN {self.guard} THEN {hashed} END"

    def row_hash(self, of: str = "") -> str:
        """A 64-bit hash of a row, by the equality of its types; `of` names the table in the statement."""
        return hash_of([f"{of}.{ident(name)}" if of else ident(name) for name in self.columns])

    def differences(self, stream_scope: str, table_scope: str) -> str:
        """Rows on one side alone: side, hash of the key, slice, key, whole row."""
        columns = ", ".join(map(ident, self.columns))
        key = ", ".join(f"{quoted(name)}, d__.{ident(name)}" for name in self.identity or self.key)
        pairs = ", ".join(f"{quoted(name)}, {ident(name)}" for name in self.shown)
        row = f"jsonb_build_object({pairs})" if pairs else "to_jsonb(d__)"

        def only_in(one: str, other: str) -> str:
            return (
                f"SELECT '{one}' AS side, {self.hash} AS hash, {self.slicing.row} AS slice,"
                f" jsonb_build_object({key}) AS key, {row} AS row\n"
                f"FROM (SELECT {columns} FROM {one} EXCEPT ALL SELECT {columns} FROM {other}) AS d__"
            )

        return (
            f"WITH expected AS MATERIALIZED (\n{indent(self.expected(stream_scope))}\n),\n"
            f"actual AS MATERIALIZED (\n    SELECT {columns} FROM {self.table} WHERE {table_scope}\n)\n"
            + only_in("expected", "actual")
            + "\nUNION ALL\n"
            + only_in("actual", "expected")
        )

    def delete(self, table_scope: str = EVERYTHING) -> str:
        """Removes the rows of the keys whose hashes are in the parameter `keys`."""
        return f"DELETE FROM {self.table} WHERE ({table_scope}) AND {within_keys(self.hash)}"

    def insert(self, stream_scope: str = EVERYTHING) -> str:
        """Writes the rows that those keys must have; all their events are in the scope."""
        columns = ", ".join(map(ident, self.columns))
        scope = f"{stream_scope}\n  AND {within_keys(self.stream_hash)}"
        return f"INSERT INTO {self.table} ({columns})\n{self.expected(scope)}"


@dataclass(frozen=True, slots=True)
class Statements:
    """The life of a build in SQL.

    Args:
        create: makes its tables, of which Postgres infers the types, and what the planner shall know of them.
        keys: indexes that exist from the start (the upserts need them).
        indexes: indexes that are made after the first load.
        page: applies one page; answers the number of events and the last key.
        backlog: the same for the middle of a backlog (`Stream.settled_page`).
        load: applies the first step of the first load, in order.
        load_next: applies every further one.
        relations: what the audit compares; the first is the table that analysts see.
        view: the SELECT of the stable view.
        view_hides: whether the view leaves rows of the table out.
        load_apart: the load where events are left out, if that cannot be the same statement.
        probe: evaluates the query over a range of events, where a step of the load is no such range; what it
            writes is thrown away.
        probe_keys: the same for the keys whose hashes are in the parameter `keys`.
        keys_left: the hashes of the keys of which a step of the load is left.
        events_of_keys: the events of some keys, in order: id and coordinates.
        checksums: moves the checksums by rows that Python has written, whose ids are the parameter `ids`, and by those
            that it has read, whose coordinates are `positions` and `ordinals`.
        reads_by_slice: whether what was read is kept by slices of positions, with hashes; else it is counted.
    """

    create: tuple[str, ...]
    keys: tuple[str, ...]
    indexes: tuple[str, ...]
    page: str
    backlog: str
    load: tuple[str, ...]
    load_next: tuple[str, ...]
    relations: tuple[Relation, ...]
    view: str
    view_hides: bool = False
    load_apart: tuple[str, ...] = ()
    probe: tuple[str, ...] = ()
    probe_keys: tuple[str, ...] = ()
    keys_left: str = ""
    events_of_keys: str = ""
    checksums: str = ""
    reads_by_slice: bool = True


def slice_statistics(table: str, name: str, slicing: Slicing) -> tuple[str, ...]:
    """Makes the next ANALYZE tell the planner how few slices there are: else an audit sorts all rows by theirs.

    Of days it knows that already, from the column.
    """
    if slicing.kind == "day":
        return ()
    return (f"CREATE STATISTICS refold_builds.{ident(name + SLICE)} ON ({slicing.row}) FROM {table}",)


def within_keys(hash_sql: str) -> str:
    """Condition: the key's hash is one of the parameter `keys`."""
    return f"{hash_sql} IN (SELECT unnest(%(keys)s::bigint[]))"


def key_names(key: Sequence[KeyPart]) -> tuple[str, ...]:
    return tuple(part.name for part in key)
