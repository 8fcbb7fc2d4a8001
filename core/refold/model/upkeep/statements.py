"""The statements that every kind of upkeep provides, as SQL text with named parameters (psycopg's `%(name)s`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from refold.model.projection.plan import KeyPart
from refold.model.sql_text import EVERYTHING, hash_of, ident, indent, quoted
from refold.model.stream.slices import Slicing
from refold.model.upkeep.names import SLICE

ROW_SEED = 8
"""Seed of the hashes of rows: what is NULL must not pass for a number in an audit."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A table of a build whose checksums are kept.

    Args:
        table: its qualified name, as SQL.
        columns: the names of all its columns.
        key: the columns that identify a row, or the rows that are computed together.
        slicing: how the table is divided into slices for audits.
    """

    table: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    slicing: Slicing

    @property
    def hash(self) -> str:
        """Return the SQL of the key's hash over a row of the table, by type equality, NULLs included."""
        return hash_of([ident(name) for name in self.key])

    def row_hash(self, of: str = "") -> str:
        """Return the SQL of a 64-bit hash of a row, by type equality.

        Args:
            of: the table's name in the statement; empty for columns without a qualifier.
        """
        return hash_of([f"{of}.{ident(name)}" if of else ident(name) for name in self.columns], seed=ROW_SEED)


@dataclass(frozen=True, slots=True)
class Relation(Kept):
    """A table of a build that must equal a query over the stream.

    Args:
        key_sql: the key as expressions over one row of the stream.
        expected: returns the query for the rows that the table must hold, given a condition on the stream's rows and
            one on the table's rows, for the same keys.
        identity: the columns that identify a row in a report; empty if the key does.
        guard: a condition on a row of the stream; the key is evaluated only where it holds.
        shown: the columns of a row that a report shows; empty for all.
        told: a condition on the table's rows that the stream can still tell; the others stand by themselves.
    """

    key_sql: tuple[str, ...]
    expected: Callable[[str, str], str]
    identity: tuple[str, ...] = ()
    guard: str = EVERYTHING
    shown: tuple[str, ...] = ()
    told: str = EVERYTHING

    @property
    def stream_hash(self) -> str:
        """Return the SQL of the key's hash over a row of the stream; NULL where the guard does not hold."""
        hashed = hash_of(self.key_sql)
        return hashed if self.guard == EVERYTHING else f"CASE WHEN {self.guard} THEN {hashed} END"

    def differences(self, stream_scope: str, table_scope: str) -> str:
        """Return the query for rows that only the table or only its query has: side, key hash, slice, key, row.

        Args:
            stream_scope: a condition on rows of the stream.
            table_scope: a condition on rows of the table, for the same slices.
        """
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
            f"WITH expected AS MATERIALIZED (\n{indent(self.expected(stream_scope, table_scope))}\n),\n"
            f"actual AS MATERIALIZED (\n    SELECT {columns} FROM {self.table} WHERE {self._told(table_scope)}\n)\n"
            + only_in("expected", "actual")
            + "\nUNION ALL\n"
            + only_in("actual", "expected")
        )

    def delete(self, table_scope: str = EVERYTHING) -> str:
        """Return the DELETE for the rows of the keys whose hashes are in the parameter `keys`."""
        return f"DELETE FROM {self.table} WHERE ({table_scope}) AND {within_keys(self.hash)}"

    def insert(self, stream_scope: str = EVERYTHING, table_scope: str = EVERYTHING) -> str:
        """Return the INSERT of the rows that the keys in the parameter `keys` must have.

        Args:
            stream_scope: a condition on rows of the stream that holds for all events of these keys.
            table_scope: a condition on rows of the table that holds for all rows of these keys.
        """
        columns = ", ".join(map(ident, self.columns))
        stream = f"{stream_scope}\n  AND {within_keys(self.stream_hash)}"
        table = f"({table_scope}) AND {within_keys(self.hash)}"
        return f"INSERT INTO {self.table} ({columns})\n{self.expected(stream, table)}"

    def _told(self, table_scope: str) -> str:
        return table_scope if self.told == EVERYTHING else f"({table_scope}) AND {self.told}"


@dataclass(frozen=True, slots=True)
class Base:
    """The SQL of a build's base: what it keeps of events so that they may leave the log (`refold.model.upkeep.base`).

    A row of the base counts once the build's floor has reached the row's `upto__`. Statements that change rows also
    change their checksums, of the build in the parameter `build`.

    Args:
        tables: the tables, whose checksums are kept behind those of the build's relations.
        create: the statements that create them.
        fold: given the relation of events, adds those from the parameter `lower` up to `upper`, but for `dead` ones, as
            rows that count up to `upto`; returns how many events it read, and the sums of the hashes of their
            coordinates and contents.
        undo: deletes the rows that do not count at the floor in the parameter `floor`.
        settle: merges at most `limit` rows that count at `floor` into the row of their key; returns their number.
        copy: given the name of another build's table, fills the base with the rows of its base that count at `floor`.
        load: fills the empty tables of the build from the base.
        taken: given the name of a build's table that was loaded from the archive alone, fills the empty base from it
            and from its sets.
        alone: the queries for the rows of the build's relations that the base makes without live events.
    """

    tables: tuple[Kept, ...]
    create: tuple[str, ...]
    fold: Callable[[str], str]
    undo: str
    settle: str
    copy: Callable[[str], str]
    load: tuple[str, ...]
    taken: Callable[[str], tuple[str, ...]]
    alone: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Statements:
    """All SQL statements of a build, from its creation to its audits.

    Args:
        create: the statements that create its tables, whose types Postgres infers, and their planner statistics.
        keys: the unique indexes that exist from the start, because upserts need them.
        indexes: the indexes that are made after the first load.
        page: applies one page; returns the number of events and the last key.
        backlog: applies one page in the middle of a backlog (`Stream.settled_page`); returns the same.
        load: the statements of the first step of the first load, in order.
        load_next: the statements of each further step.
        relations: the tables that an audit compares; the first is the table that analysts see.
        view: the SELECT of the stable view.
        view_hides: whether the view hides rows of the table.
        load_apart: the load that leaves out events; empty if `load` can do so.
        probe: evaluates the query over a range of events, where a step of the load is not such a range; its writes
            are discarded.
        probe_keys: does the same for the keys whose hashes are in the parameter `keys`.
        keys_left: returns the hashes of the keys in the steps of the load that are left.
        events_of_keys: returns the id and coordinates of the events of some keys, in order.
        checksums: changes the checksums for rows that Python has written (their ids are the parameter `ids`) and has
            read (their coordinates are `positions` and `ordinals`).
        folded: given the relation of more events, returns the query for the rows that their keys will have, as a page
            folds them into the rows that there are. None: only `Relation.expected` tells the rows.
        reads_by_slice: whether the checksums of read events are kept with hashes, by slices of positions; otherwise
            only their number is kept.
        counted: the tables of its base, once they count for something.
        base: the SQL of its base; None for a build whose rows stand by themselves, or that reads all events of a key.
        standing: given the name of another build's table, fills this build's empty table with the rows of positions
            below the parameter `floor`; None for a build that has a base, or neither.
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
    folded: Callable[[str], str] | None = None
    reads_by_slice: bool = True
    base: Base | None = None
    counted: tuple[Kept, ...] = ()
    standing: Callable[[str], str] | None = None

    @property
    def kept(self) -> tuple[Kept, ...]:
        """Return the tables whose checksums are kept, in the order of their numbers there."""
        return (*self.relations, *self.counted)


def floor_of(name: str) -> str:
    """Return the SQL of a build's floor: the first position that is not in its base.

    Args:
        name: the name of its table, without the schema.
    """
    return f"(SELECT b.floor FROM refold.builds AS b WHERE b.table_name = {quoted(name)})"


def slice_statistics(table: str, name: str, slicing: Slicing) -> tuple[str, ...]:
    """Return the statistics object that tells the planner how few slices there are; none for slices by day.

    Without it, an audit would sort all rows by slice. ANALYZE fills it. For slices by day, the column's own statistics
    suffice.
    """
    if slicing.kind == "day":
        return ()
    return (f"CREATE STATISTICS refold_builds.{ident(name + SLICE)} ON ({slicing.row}) FROM {table}",)


def within_keys(hash_sql: str) -> str:
    """Return the condition that a key's hash is in the parameter `keys`."""
    return f"{hash_sql} IN (SELECT unnest(%(keys)s::bigint[]))"


def key_names(key: Sequence[KeyPart]) -> tuple[str, ...]:
    return tuple(part.name for part in key)
