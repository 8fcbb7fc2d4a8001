"""The base of a merged build: what its tables hold of events that have left the log. Pure text.

The law of such a build is `table = base ⊕ query(live events that the cursor has applied)`. The base has the partial
aggregates of the table, and beside each set of counted values the values of those events. To fold events into it is
what a page does, with the same aggregation and the same merge.

Folding goes ahead of the purge, while the events are still in the log. So each row says from which floor on it counts
(`upto__`): until the purge moves the floor, audits read these events from the log, and the rows count for nothing.
Nothing is moved or merged when the floor moves. Rows that count are merged into one for each key afterwards, which
changes no sum. A value of a set keeps the `upto__` with which it was first seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from refold.model.projection.plan import Members, Partial
from refold.model.sql_text import ident, indent
from refold.model.stream.page_sql import ALIVE
from refold.model.stream.slices import Slicing
from refold.model.upkeep import checksums
from refold.model.upkeep.names import base_table
from refold.model.upkeep.statements import Base, Kept, floor_of, slice_statistics

UPTO = "upto__"
"""Column of a base: the floor from which on the row counts."""
MEMBER = "member__"
"""Column of the sets that holds the counted value."""
SETTLED = 1
"""The `upto__` of rows that are merged into one for each key."""


class Bases:
    """The SQL of the tables of a base.

    Args:
        table: the build's table, qualified, as SQL.
        name: the table's name without the schema.
        keys: the columns of its key.
        merged: the aggregates that are merged.
        sets: the sets behind the distinct counts: table, name and values.
        slicing: how the build is divided.
        combined: returns the SQL that merges an aggregate of the row `kept` with that of the row `excluded`.
        added_up: returns the SQL that aggregates an aggregate of several rows.
        relations: number of the tables that an audit compares; the base's come behind them.
    """

    def __init__(
        self,
        table: str,
        name: str,
        keys: tuple[str, ...],
        merged: Sequence[Partial],
        sets: Sequence[tuple[str, str, Members]],
        slicing: Slicing,
        combined: Callable[[Partial], str],
        added_up: Callable[[Partial], str],
        relations: int,
    ) -> None:
        self.table, self.name, self.keys, self.merged, self.sets = table, name, keys, merged, sets
        self.slicing, self.combined, self.added_up, self.first = slicing, combined, added_up, relations
        self.names = (*keys, *(partial.name for partial in merged))
        self.own = Kept(base_table(table), (*self.names, UPTO), keys, slicing)
        self.of_sets = [
            Kept(base_table(set_table), (*keys, MEMBER, UPTO), keys, slicing) for set_table, _, _ in self.sets
        ]

    @property
    def tables(self) -> tuple[Kept, ...]:
        return (self.own, *self.of_sets)

    def counted(self) -> str:
        """Return the condition that a row counts."""
        return f"{UPTO} <= {floor_of(self.name)}"

    def create(self) -> tuple[str, ...]:
        own, keys = self.own.table, _list(self.keys)
        made = [
            f"CREATE TABLE {own} AS SELECT {_list(self.names)} FROM {self.table} WITH NO DATA",
            f"ALTER TABLE {own} ADD COLUMN {UPTO} bigint NOT NULL"
            + (f", ADD COLUMN {checksums.BEFORE} bigint" if self.merged else ""),
            f"CREATE UNIQUE INDEX {ident(base_table(self.name) + '__key')}"
            f" ON {own} ({keys}, {UPTO}) NULLS NOT DISTINCT",
            f"CREATE INDEX {ident(base_table(self.name) + '__new')} ON {own} ({UPTO}) WHERE {UPTO} > {SETTLED}",
            *slice_statistics(own, base_table(self.name), self.slicing),
        ]
        for (set_table, set_name, _), kept in zip(self.sets, self.of_sets, strict=True):
            made += [
                f"CREATE TABLE {kept.table} AS SELECT {keys}, {MEMBER} FROM {set_table} WITH NO DATA",
                f"ALTER TABLE {kept.table} ADD COLUMN {UPTO} bigint NOT NULL",
                f"CREATE UNIQUE INDEX {ident(base_table(set_name) + '_key')}"
                f" ON {kept.table} ({keys}, {MEMBER}) NULLS NOT DISTINCT",
            ]
        return tuple(made)

    def fold(self, source: str, delta: str, members: Sequence[str]) -> str:
        """Return the statement that adds the events of a relation.

        Args:
            source: the relation.
            delta: the query for the aggregates of the relation `page`.
            members: for each set the query for its distinct values in the relation `page`.
        """
        page = f"SELECT * FROM {source}\nWHERE position >= %(lower)s::bigint AND position < %(upper)s::bigint"
        upto = "%(upto)s::bigint"
        parts = [
            f"read__ AS MATERIALIZED (\n{indent(page)}\n)",
            f"page AS (\n    SELECT * FROM read__ WHERE {ALIVE}\n)",
        ]
        rows = f"SELECT {_list(self.names)}, {upto} FROM (\n{indent(delta)}\n) AS delta WHERE true"
        parts.append(f"written AS (\n{indent(self._upsert(rows))}\n)")
        changes = [checksums.change(self.first, "written", before=bool(self.merged))]
        for at, (kept, values) in enumerate(zip(self.of_sets, members, strict=True), start=1):
            into = (
                f"INSERT INTO {kept.table} ({_list(kept.columns)})\n"
                f"SELECT {_list(kept.columns[:-1])}, {upto} FROM (\n{indent(values)}\n) AS new\n"
                f"ON CONFLICT DO NOTHING\n{checksums.returning(kept)}"
            )
            parts.append(f"new_{at} AS (\n{indent(into)}\n)")
            changes.append(checksums.change(self.first + at, f"new_{at}"))
        parts.append(checksums.moved(changes))
        return (
            "WITH " + ",\n".join(parts) + f"\nSELECT count(*), coalesce(sum({checksums.identity('0')}), 0),"
            f" coalesce(sum({checksums.EVENT_HASH}), 0) FROM read__"
        )

    def _upsert(self, rows: str) -> str:
        changes = ",\n    ".join(f"{ident(one.name)} = {self.combined(one)}" for one in self.merged)
        if changes:
            changes += f",\n    {checksums.BEFORE} = {self.own.row_hash('kept')}"
        action = f"DO UPDATE SET\n    {changes}" if changes else "DO NOTHING"
        return (
            f"INSERT INTO {self.own.table} AS kept ({_list((*self.names, UPTO))})\n{rows}\n"
            f"ON CONFLICT ({_list(self.keys)}, {UPTO}) {action}\n"
            f"{checksums.returning(self.own, before=bool(self.merged))}"
        )

    def undo(self) -> str:
        parts, changes = [], []
        for at, kept in enumerate(self.tables):
            gone = f"DELETE FROM {kept.table} WHERE {UPTO} > %(floor)s::bigint AND {UPTO} > {SETTLED}"
            parts.append(f"gone_{at} AS (\n    {gone}\n    {checksums.returning(kept)}\n)")
            changes.append(checksums.change(self.first + at, f"gone_{at}", gone=True))
        return "WITH " + ",\n".join(parts) + "\n" + checksums.move(changes)

    def settle(self) -> str:
        at = f"SELECT ctid FROM {self.own.table} WHERE {UPTO} > {SETTLED} AND {UPTO} <= %(floor)s::bigint"
        gone = (
            f"DELETE FROM {self.own.table} WHERE ctid = ANY (ARRAY({at} LIMIT %(limit)s::bigint))\n"
            f"{checksums.returning(self.own)}, {_list(self.names)}"
        )
        outputs = [*map(ident, self.keys), *(f"{self.added_up(one)} AS {ident(one.name)}" for one in self.merged)]
        rows = f"SELECT {', '.join(outputs)}, {SETTLED} FROM gone GROUP BY {_list(self.keys)}"
        changes = [
            checksums.change(self.first, "gone", gone=True),
            checksums.change(self.first, "written", before=bool(self.merged)),
        ]
        return (
            f"WITH gone AS (\n{indent(gone)}\n),\nwritten AS (\n{indent(self._upsert(rows))}\n),\n"
            f"{checksums.moved(changes)}\nSELECT count(*) FROM gone"
        )

    def copy(self, other: str) -> str:
        """Return the statement that takes over the base of another build; `load` computes the checksums."""
        suffixes = [table.removeprefix(self.table) for table in (kept.table for kept in self.tables)]
        parts = []
        for at, (kept, suffix) in enumerate(zip(self.tables, suffixes, strict=True)):
            columns = _list(kept.columns)
            rows = f"SELECT {columns} FROM refold_builds.{ident(other)}{suffix} WHERE {UPTO} <= %(floor)s::bigint"
            parts.append(f"copied_{at} AS (\n    INSERT INTO {kept.table} ({columns})\n    {rows}\n)")
        return "WITH " + ",\n".join(parts) + "\nSELECT"

    def taken(self, other: str) -> tuple[str, ...]:
        """Return the statements that fill the base from the tables of a build, which hold purged events alone."""
        of = f"refold_builds.{ident(other)}"
        names, of_set = _list(self.names), _list((*self.keys, MEMBER))
        return (
            f"INSERT INTO {self.own.table} ({names}, {UPTO}) SELECT {names}, {SETTLED} FROM {of}",
            *(
                f"INSERT INTO {kept.table} ({of_set}, {UPTO})"
                f" SELECT {of_set}, {SETTLED} FROM {of}{set_table.removeprefix(self.table)}"
                for (set_table, _, _), kept in zip(self.sets, self.of_sets, strict=True)
            ),
        )

    def alone(self, rows: str) -> tuple[str, ...]:
        """Return the queries for the rows of the build's tables that the base makes without live events.

        Args:
            rows: the query for those of the first table.
        """
        of_set = _list((*self.keys, MEMBER))
        return (rows, *(f"SELECT {of_set} FROM {kept.table} WHERE {self.counted()}" for kept in self.of_sets))

    def load(self, rows: str, set_keys: Sequence[str]) -> tuple[str, ...]:
        """Return the statements that fill the build's tables.

        Args:
            rows: the INSERT of the rows of the build's table.
            set_keys: the statements that create the unique indexes of the sets.
        """
        columns = _list((*self.keys, MEMBER))
        filled = [
            f"INSERT INTO {set_table} ({columns}) SELECT {columns} FROM {kept.table} WHERE {self.counted()}"
            for (set_table, _, _), kept in zip(self.sets, self.of_sets, strict=True)
        ]
        return (*filled, *set_keys, rows)

    def values(self, set_table: str, table_scope: str, live: str) -> str:
        """Return the query for the values of a set that base and live events make together.

        Args:
            set_table: the set.
            table_scope: a condition on its rows, and so on those of its base.
            live: the query for the values of the live events.
        """
        base = f"SELECT {_list((*self.keys, MEMBER))} FROM {base_table(set_table)}"
        return f"{base} WHERE ({table_scope}) AND {self.counted()}\nUNION\n{live}"

    def sql(self, fold: Callable[[str], str], load: tuple[str, ...], rows: str) -> Base:
        """Return all statements."""
        return Base(
            self.tables, self.create(), fold, self.undo(), self.settle(), self.copy, load, self.taken, self.alone(rows)
        )

    def together(
        self,
        table_scope: str,
        live: tuple[str, Sequence[str]] | None,
        columns: Callable[[str | None], str],
        partials: Sequence[Partial],
    ) -> str:
        """Return the query for the rows that base and live events make together.

        Args:
            table_scope: a condition on rows of the build's table, and so on those of the base.
            live: the query for the aggregates of the live events, and for each set that for its values; None for none.
            columns: returns the columns of the table in the rows of a set, given its count, or of aggregates.
            partials: the aggregates of the table, in its order.
        """
        keys = _list(self.keys)
        within = f"({table_scope}) AND {self.counted()}"
        parts = [f"SELECT {keys}{columns(None)} FROM {self.own.table} WHERE {within}"]
        if live is not None:
            parts.append(f"SELECT {keys}{columns(None)} FROM (\n{indent(live[0])}\n) AS delta")
        for at, ((_, _, one), kept) in enumerate(zip(self.sets, self.of_sets, strict=True)):
            values = f"SELECT {keys}, {MEMBER} FROM {kept.table} WHERE {within}"
            if live is not None:
                values += f"\nUNION\n{live[1][at]}"
            counted = f"SELECT {keys}{columns(one.partial)} FROM (\n{indent(values)}\n) AS members GROUP BY {keys}"
            parts.append(counted)
        outputs = [*map(ident, self.keys), *(self.added_up(one) for one in partials)]
        if self.merged or self.sets:
            outputs.append("NULL")  # BEFORE
        # A sum of counts is a numeric; the row has the types of the table.
        typed = f"ROW({', '.join(outputs)})::{self.table} AS row__"
        selected = ", ".join(f"(row__).{ident(name)}" for name in (*self.keys, *(one.name for one in partials)))
        return (
            f"SELECT {selected}\nFROM (\n    SELECT {typed}\n    FROM (\n"
            + "\n        UNION ALL\n".join(indent(part, 8) for part in parts)
            + f"\n    ) AS parts\n    GROUP BY {keys}\n) AS together"
        )


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(ident, names))
