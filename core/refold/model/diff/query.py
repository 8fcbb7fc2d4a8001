"""SQL that compares the rows of two builds, as analysts see them. Pure.

Both builds are read as of their own cursors. A key is *in flight* if one build has applied an event of it which the
other has not reached: a difference there is lag. A dead letter was reached, so what it lacks is a difference.

Values are compared by equality of their type, and NULL equals NULL. Numbers are subtracted as `numeric`, exactly. A
float counts as the shortest decimal that stands for it, because the cast of Postgres rounds to 15 digits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from refold.model.diff.shape import Output, Shown, compared_columns, same_slices
from refold.model.sql_text import EVERYTHING, hash_of, in_order, indent, literal, quoted, where
from refold.model.stream.cursor import Cursor
from refold.model.stream.page_sql import Stream
from refold.model.stream.parameters import cursor_parameters
from refold.model.stream.slices import EVERY_SLICE, Range
from refold.model.upkeep.statements import ROW_SEED

BEFORE = "before"
AFTER = "after"
KINDS = ("identical", "modified", "added", "removed", "in flight")
"""Classes of rows: equal, different, only in the second build, only in the first, or different but in flight."""

_PARAMETER = re.compile(r"%\((\w+)\)s")
_FLOATS = ("real", "double precision")


def of(side: str, sql: str) -> str:
    """Return SQL whose parameters have the names that `parameters` gives them for this side."""
    return _PARAMETER.sub(rf"%({side}_\1)s", sql)


def parameters(side: str, cursor: Cursor, dead: Sequence[str]) -> dict[str, str]:
    """Return the cursor of a build as parameters of the statements here.

    Args:
        side: `before` or `after`.
        cursor: the cursor of the build.
        dead: the ids of the events that it leaves out.
    """
    # Ordinals of different streams cannot be compared, so an event that is read in part counts as not reached.
    progress = None if cursor.progress is None else cursor.progress.whole()
    reached = cursor_parameters(replace(cursor, progress=progress))
    found = cursor_parameters(cursor, dead) | {
        "open": "{" + ",".join(map(str, cursor.done.xip)) + "}",
        "end": str(cursor.done.xmax),
        **{f"whole_{name}": value for name, value in reached.items() if name.startswith("progress")},
    }
    return {f"{side}_{name}": value for name, value in found.items()}


class Comparison:
    """The statements that compare two builds with the same key.

    Args:
        before: the first build.
        after: the second build.
        ranges: the slices to read, of both builds.
    """

    def __init__(self, before: Shown, after: Shown, ranges: Sequence[Range] = EVERY_SLICE) -> None:
        self.sides = {BEFORE: before, AFTER: after}
        self.ranges = ranges
        self.columns = compared_columns(before, after)
        # A key with several rows does not tell them apart: then rows are paired that are equal.
        self.unique = before.unique
        self.sliced = same_slices(before, after)

    def counts(self) -> str:
        """Return the query for one row: the number of rows of each kind, first and last slice that differ, and columns.

        For each compared column it has three arrays: rows that differ, sums of the differences, and greatest absolute
        differences; the last two are NULL for what is not a number.
        """
        differ = "kind IN ('modified', 'added', 'removed')"
        kinds = [f"count(*) FILTER (WHERE kind = '{kind}')" for kind in KINDS]
        modified = "FILTER (WHERE kind = 'modified' AND d{at})"
        rows, sums, most = [], [], []
        for at, (one, _) in enumerate(self.columns):
            chosen = modified.format(at=at)
            rows.append(f"count(*) {chosen}")
            sums.append(f"sum(n{at}) {chosen}" if one.is_number else "NULL::numeric")
            most.append(f"max(abs(n{at})) {chosen}" if one.is_number else "NULL::numeric")
        slices = "slice" if self.sliced else "NULL::integer"
        return (
            f"{self._classified()}\n"
            f"SELECT {', '.join(kinds)},\n"
            f"       min({slices}) FILTER (WHERE {differ}), max({slices}) FILTER (WHERE {differ}),\n"
            f"       {_array(rows, 'bigint')}, {_array(sums, 'numeric')}, {_array(most, 'numeric')}\n"
            "FROM classified"
        )

    def samples(self) -> str:
        """Return the query for the first rows of each kind that are not identical, at most `samples` of each.

        Its columns: kind, key, the columns of the view in the first build and in the second, each an array of texts.
        NULL stands for a row that does not exist.
        """
        keys = [f"k{at}" for at in range(len(self.sides[BEFORE].key))]
        order = ", ".join([*keys, "h"])
        return (
            f"{self._classified(shown=True)}\n"
            f"SELECT kind, ARRAY[{', '.join(f'{one}::text' for one in keys)}]::text[], before__, after__\n"
            "FROM (\n"
            f"    SELECT *, row_number() OVER (PARTITION BY kind ORDER BY {order}) AS at__ FROM classified"
            " WHERE kind <> 'identical'\n"
            ") AS numbered\n"
            "WHERE at__ <= %(samples)s::bigint\n"
            f"ORDER BY array_position(ARRAY[{', '.join(map(quoted, KINDS))}], kind), {order}"
        )

    def _classified(self, *, shown: bool = False) -> str:
        parts = [f"{side} AS (\n{indent(self._rows(side, shown=shown))}\n)" for side in self.sides]
        flight = "coalesce(b.flight, a.flight)"
        if not self.sides[BEFORE].event_grain:
            parts.insert(0, f"in_flight AS MATERIALIZED (\n{indent(self._in_flight())}\n)")
            flight = "coalesce(b.kh, a.kh) IN (SELECT kh FROM in_flight)"
        keys = [f"k{at}" for at in range(len(self.sides[BEFORE].key))]
        # Only what is hashed can be joined in full; equality is decided by the values.
        joined = [*keys, *([f"c{at}" for at in range(len(self.columns))] + ["copy"] if not self.unique else [])]
        on = " AND ".join(["b.h = a.h", *(f"b.{one} IS NOT DISTINCT FROM a.{one}" for one in joined)])
        differ = [f"b.c{at} IS DISTINCT FROM a.c{at}" for at in range(len(self.columns))]
        carried = [f"coalesce(b.{one}, a.{one}) AS {one}" for one in ("h", "slice", *keys)]
        for at, (one, _) in enumerate(self.columns):
            carried.append(f"{differ[at]} AS d{at}")
            if one.is_number:
                carried.append(f"{_exact(one, f'a.c{at}')} - {_exact(one, f'b.c{at}')} AS n{at}")
        if shown:
            carried += ["b.shown AS before__", "a.shown AS after__"]
        differs = " OR ".join(differ) or "false"
        kind = (
            f"CASE WHEN b.h IS NOT NULL AND a.h IS NOT NULL AND NOT ({differs}) THEN 'identical'\n"
            f"         WHEN {flight} THEN 'in flight'\n"
            "         WHEN b.h IS NULL THEN 'added' WHEN a.h IS NULL THEN 'removed' ELSE 'modified' END AS kind"
        )
        parts.append(
            f"classified AS (\n    SELECT {kind},\n           {', '.join(carried)}\n"
            f"    FROM {BEFORE} AS b FULL JOIN {AFTER} AS a ON {on}\n)"
        )
        return "WITH " + ",\n".join(parts)

    def _rows(self, side: str, *, shown: bool) -> str:
        one = self.sides[side]
        first = self.sides[BEFORE]
        # Keys in the order of the first build, so that their hashes are equal.
        by_name = {column.name: column for column in one.key}
        key = [by_name[column.name] for column in first.key]
        hashed = [literal(column.sql) for column in key]
        values = [_alike(*pair, side) for pair in self.columns]
        selected = [f"({column}) AS k{at}" for at, column in enumerate(hashed)]
        selected += [f"{value} AS c{at}" for at, value in enumerate(values)]
        selected.append(f"{one.slicing.row} AS slice")
        if one.event_grain:
            selected.append(f"NOT ({self._reached(_other(side))}) AS flight")
        else:
            selected.append(f"{hash_of(hashed, seed=ROW_SEED)} AS kh")
        together = hash_of(hashed if self.unique else [*hashed, *values], seed=ROW_SEED)
        selected.append(f"{together} AS h")
        if not self.unique:
            selected.append(f"row_number() OVER (PARTITION BY {together}) AS copy")
        if shown:
            texts = ", ".join(f"({literal(column.sql)})::text" for column in one.columns)
            selected.append(f"ARRAY[{texts}]::text[] AS shown")
        having = None if one.having is None else f"({literal(one.having)})"
        scope = EVERYTHING if self.ranges == EVERY_SLICE else one.slicing.scope(self.ranges)[1]
        return "SELECT " + ",\n       ".join(selected) + f"\nFROM {one.table}" + where(scope, having)

    def _in_flight(self) -> str:
        """Return the query for the hashes of keys of events that only one build has applied."""
        parts = []
        for side, one in self.sides.items():
            other = _other(side)
            first = self.sides[BEFORE]
            by_name = {column.name: sql for column, sql in zip(one.key, one.key_sql, strict=True)}
            hashed = hash_of([by_name[column.name] for column in first.key], seed=ROW_SEED)
            own = None if one.where is None else f"({literal(one.where)})"
            applied = in_order(of(side, one.stream.applied()), f"NOT ({self._reached(other)})", own)
            late = of(other, "(txid = ANY (%(open)s::xid8[]) OR txid >= %(end)s::xid8)")
            # OFFSET 0: expressions of the projection are evaluated for these events alone.
            parts.append(
                f"SELECT {hashed} AS kh FROM (\n    SELECT * FROM {one.stream.table}\n    WHERE {late}\n"
                f"      AND {applied}\n    OFFSET 0\n) AS late"
            )
        return "\nUNION\n".join(parts)

    @staticmethod
    def _reached(side: str) -> str:
        passed = Stream("", ordinal=False).passed()
        return of(side, passed.replace("%(progress_", "%(whole_progress_"))


def _other(side: str) -> str:
    return AFTER if side == BEFORE else BEFORE


def _array(values: Sequence[str], kind: str) -> str:
    return f"ARRAY[{', '.join(values)}]::{kind}[]"


def _exact(column: Output, value: str) -> str:
    """Return a number as numeric, without rounding."""
    return f"{value}::text::numeric" if column.type in _FLOATS else f"{value}::numeric"


def _alike(one: Output, other: Output, side: str) -> str:
    """Return a value as both builds compare it: numbers of different types as numeric."""
    column = one if side == BEFORE else other
    value = f"({literal(column.sql)})"
    return value if one.type == other.type else _exact(column, value)
