"""The key of rows of a metric, as a user writes it and as Postgres reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

from refold.errors import InputError
from refold.model.sql_text import ident, indent
from refold.model.upkeep.statements import Relation
from refold.postgres.rows import one_row
from refold.store.builds.build import Build
from refold.store.builds.compiled import CompiledBuild
from refold.suggest import did_you_mean

OFFERED = 5
"""Most values of a missing part of the key that an error names."""
_TEXT = ("text", "character varying", "character")

Given = Mapping[str, str | None]
"""Columns and their values as texts; None is NULL."""


@dataclass(frozen=True, slots=True)
class RowKey:
    """The key of rows, and further columns that choose among them.

    Args:
        names: the columns of the key.
        types: their types, as SQL.
        values: their values, in Postgres' own text form; None is NULL.
        others: further columns of the view, with their types and values.
        hash: the hash of the key, as its build computes it.
        slice: the slice of its rows.
        position: for an event, its position in the log according to the ledger; 0 if the ledger does not know it.
    """

    names: tuple[str, ...]
    types: tuple[str, ...]
    values: tuple[str | None, ...]
    others: tuple[tuple[str, str, str | None], ...] = ()
    hash: int = 0
    slice: int = 0
    position: int = 0

    @property
    def parameters(self) -> dict[str, str | None]:
        """Return the parameters of the conditions below and of `refold.model.upkeep.behind.of_key`."""
        return {
            **{f"key_{at}": value for at, value in enumerate(self.values)},
            **{f"other_{at}": value for at, (_, _, value) in enumerate(self.others)},
            "key_hash": str(self.hash),
        }

    def of_key(self) -> str:
        """Return the condition that a row of the table has this key; equality, so that an index serves it."""
        return " AND ".join(
            _equal(ident(name), kind, value, f"key_{at}")
            for at, (name, kind, value) in enumerate(zip(self.names, self.types, self.values, strict=True))
        )

    def of_stream(self, relation: Relation) -> str:
        """Return the condition that a row of the stream has this key; to evaluate only where the key's hash is equal.

        A hash alone does not tell NULL from a float's 0, for example.
        """
        return " AND ".join(
            _equal(f"({key})", kind, value, f"key_{at}")
            for at, (key, kind, value) in enumerate(zip(relation.key_sql, self.types, self.values, strict=True))
        )

    def only(self, relation: Relation) -> Relation:
        """Return a table of the build whose expected rows are those of this key."""

        def expected(scope: str, table_scope: str) -> str:
            return f"SELECT * FROM (\n{indent(relation.expected(scope, table_scope))}\n) AS k\nWHERE {self.of_key()}"

        return replace(relation, expected=expected)

    def of_row(self) -> str:
        """Return the condition that a row of the view has this key and these other columns."""
        others = [_equal(ident(name), kind, value, f"other_{at}") for at, (name, kind, value) in enumerate(self.others)]
        return " AND ".join([self.of_key(), *others])

    def as_dict(self) -> dict[str, str | None]:
        """Return the key by column, as texts."""
        return dict(zip(self.names, self.values, strict=True)) | {name: value for name, _, value in self.others}


def _equal(column: str, kind: str, value: str | None, parameter: str) -> str:
    return f"{column} IS NULL" if value is None else f"{column} = %({parameter})s::{kind}"


def read_key(conn: psycopg.Connection, compiled: CompiledBuild, build: Build, given: Given) -> RowKey:
    """Return the key that a user gave.

    Raises:
        InputError: a column does not exist or is missing, or a value is not one of its type.
    """
    relation = compiled.statements.relations[0]
    types = _types(conn, build, [*relation.key, *(column.name for column in compiled.plan.columns)])
    for name in given:
        if name not in types:
            raise InputError(
                f"{build.projection} has no column {name}.{did_you_mean(name, types)}",
                remedy=f"Its key: {', '.join(relation.key)}.",
            )
    missing = [name for name in relation.key if name not in given]
    if missing:
        raise _incomplete(conn, build, relation, types, given, missing)
    others = tuple((name, types[name], value) for name, value in given.items() if name not in relation.key)
    key = made_key(conn, relation, [types[name] for name in relation.key], [given[name] for name in relation.key])
    for name, kind, value in others:
        _checked(conn, name, kind, value)
    return RowKey(key.names, key.types, key.values, others, key.hash, key.slice, _position(conn, compiled, key))


def made_key(
    conn: psycopg.Connection, relation: Relation, types: Sequence[str], values: Sequence[str | None]
) -> RowKey:
    """Return a key with what its build computes from it.

    Raises:
        InputError: a value is not one of its type.
    """
    for name, kind, value in zip(relation.key, types, values, strict=True):
        _checked(conn, name, kind, value)
    typed = ", ".join(
        f"%(key_{at})s::{kind} AS {ident(name)}"
        for at, (name, kind) in enumerate(zip(relation.key, types, strict=True))
    )
    given = {f"key_{at}": value for at, value in enumerate(values)}
    if relation.slicing.kind == "position":
        return RowKey(relation.key, tuple(types), tuple(values))
    row = one_row(conn, f"SELECT {relation.hash}, {relation.slicing.row} FROM (SELECT {typed}) AS k".encode(), given)
    return RowKey(relation.key, tuple(types), tuple(values), hash=int(row[0]), slice=int(row[1]))


def types_of(conn: psycopg.Connection, build: Build, names: Sequence[str]) -> list[str]:
    """Return the types of columns of a build's table, as SQL."""
    found = _types(conn, build, names)
    return [found[name] for name in names]


def _types(conn: psycopg.Connection, build: Build, names: Sequence[str]) -> dict[str, str]:
    """Return the types of columns by name; those of the view where the table has no such column."""
    rows = conn.execute(
        """
        SELECT DISTINCT ON (a.attname) a.attname::text, format_type(a.atttypid, a.atttypmod)
        FROM pg_attribute AS a
        JOIN pg_class AS c ON c.oid = a.attrelid
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE ((n.nspname = 'refold_builds' AND c.relname = %s) OR (n.nspname = 'metrics' AND c.relname = %s))
          AND a.attname = ANY (%s) AND a.attnum > 0 AND NOT a.attisdropped
        ORDER BY a.attname, n.nspname = 'metrics'
        """,
        (build.table_name, build.projection, list(names)),
    ).fetchall()
    known = {str(name): str(kind) for name, kind in rows}
    return {name: known[name] for name in dict.fromkeys(names) if name in known}


def _checked(conn: psycopg.Connection, name: str, kind: str, value: str | None) -> None:
    if value is None:
        return
    try:
        with conn.transaction():
            conn.execute(sql.SQL("SELECT %s::{}").format(sql.SQL(kind)), (value,))
    except psycopg.DataError as error:
        null = f" For NULL write --null {name}." if value == "" else ""
        raise InputError(
            f"{name}={value}: {error.diag.message_primary}", remedy=f"{name} is of type {kind}.{null}"
        ) from error


def _incomplete(
    conn: psycopg.Connection,
    build: Build,
    relation: Relation,
    types: Mapping[str, str],
    given: Given,
    missing: Sequence[str],
) -> InputError:
    """Return the error for a key with missing parts; it names values that they have beside those given."""
    known = [(name, types[name], given[name]) for name in relation.key if name in given]
    parts: list[str] = []
    for name, kind, value in known:
        _checked(conn, name, kind, value)
        parts.append(_equal(ident(name), kind, value, f"key_{len(parts)}"))
    rows = conn.execute(
        f"SELECT DISTINCT {ident(missing[0])}::text FROM {relation.table}"
        f" WHERE {' AND '.join(parts) or 'true'} ORDER BY 1 LIMIT {OFFERED + 1}".encode(),
        {f"key_{at}": value for at, (_, _, value) in enumerate(known)},
    ).fetchall()
    values = ["NULL" if value is None else str(value) for (value,) in rows]
    more = ", …" if len(values) > OFFERED else ""
    offered = f" {missing[0]} is one of: {', '.join(values[:OFFERED])}{more}." if values else ""
    return InputError(
        f"the key of {build.projection} is {', '.join(relation.key)}, and {', '.join(missing)} is missing",
        remedy=f"Add {' '.join(f'{name}=…' for name in missing)}.{offered} For NULL write --null {missing[0]}.",
    )


def _position(conn: psycopg.Connection, compiled: CompiledBuild, key: RowKey) -> int:
    if not compiled.plan.event_grain or compiled.stream.ordinal or key.values[0] is None:
        return 0
    row = conn.execute(
        "SELECT position FROM refold.event_ids WHERE event_id = %s", (source_id(compiled, key.values[0]),)
    ).fetchone()
    return 0 if row is None else int(row[0])


def source_id(compiled: CompiledBuild, event_id: str) -> str:
    """Return the id, in its stream, of the event that a row of an event-grain build was made of."""
    transform = compiled.transform
    return event_id.rpartition("#")[0] if transform is not None and transform.many else event_id
