"""Checks of captures against the database: Postgres itself parses and plans every expression."""

from __future__ import annotations

import re
from collections.abc import Sequence

import psycopg

from refold.engine.capture.catalog import table_shape, tables_like
from refold.errors import RefoldError
from refold.model.capture.capture_file import FIELDS, CaptureFile, Operation
from refold.model.capture.shape import TableShape
from refold.model.sql_text import ident
from refold.suggest import closest, did_you_mean

_ROWS: dict[Operation, tuple[str, ...]] = {
    "insert": ("new", "row"), "update": ("new", "old", "row"), "delete": ("old", "row"), "truncate": (),
}  # fmt: skip
_TYPES = {
    "user": (), "action": (), "time": ("timestamp with time zone",), "metadata": ("jsonb",),
}  # fmt: skip
_REFERENCE = re.compile(r'\b(?:new|old|row)\s*\.\s*("(?:[^"]|"")+"|[A-Za-z_\u0080-\uffff][\w$]*)', re.IGNORECASE)
_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}
_FORBIDDEN = re.compile(r"refold(_.*)?|metrics|pg_.*|information_schema")


def checked(
    conn: psycopg.Connection, captures: Sequence[CaptureFile], mistakes: list[RefoldError]
) -> list[tuple[CaptureFile, TableShape]]:
    """Return the captures that fit their tables, with the tables.

    Args:
        conn: in autocommit mode; acts as a role that may read the tables.
        captures: the captures of a folder.
        mistakes: receives an error for every key that is wrong.
    """
    fitting = []
    for one in captures:
        found: list[RefoldError] = []
        table = _table(conn, one, found)
        if table is not None:
            _columns(one, table, found)
            _expressions(conn, one, table, found)
            if not found:
                fitting.append((one, table))
        mistakes += found
    return fitting


def _table(conn: psycopg.Connection, capture: CaptureFile, mistakes: list[RefoldError]) -> TableShape | None:
    written = capture.table if capture.schema is None else f"{capture.schema}.{capture.table}"
    table = table_shape(conn, capture.schema, capture.table)
    if table is None:
        mistakes.append(
            capture.wrong(
                "table",
                f"there is no table {written}.{did_you_mean(written, tables_like(conn))}",
                "Create it first, or correct the name. `refold captures drop` removes a capture of a dropped table.",
            )
        )
        return None
    if _FORBIDDEN.fullmatch(table.schema):
        mistakes.append(capture.wrong("table", f"tables in the schema {table.schema} cannot be captured"))
    elif table.kind in _KINDS or table.temporary:
        what = "a temporary table" if table.temporary else _KINDS[table.kind]
        mistakes.append(capture.wrong("table", f"{written} is {what}", "Capture the table that it shows."))
    elif table.of is not None:
        whole = ".".join(table.of)
        mistakes.append(
            capture.wrong("table", f"{written} is a partition of {whole}", f"Capture the whole table: {whole}.")
        )
    else:
        return table
    return None


def _columns(capture: CaptureFile, table: TableShape, mistakes: list[RefoldError]) -> None:
    names = [one.name for one in table.columns]
    for key, given in (("id", capture.id), ("columns", capture.columns)):
        for name in given or ():
            if name not in names:
                mistakes.append(capture.wrong(key, f"{table.name} has no column {name}.{did_you_mean(name, names)}"))
    if capture.id is None or any(name not in names for name in capture.id):
        return
    if not any(set(unique) == set(capture.id) for unique in table.unique):
        mistakes.append(
            capture.wrong(
                "id",
                f"no unique index of {table.name} has exactly these columns",
                f"CREATE UNIQUE INDEX ON {ident(table.schema)}.{ident(table.name)}"
                f" ({', '.join(map(ident, capture.id))});",
            )
        )
    nullable = [name for name in capture.id if (found := table.column(name)) is not None and not found.not_null]
    if nullable:
        mistakes.append(
            capture.wrong("id", f"{', '.join(nullable)} may be NULL", "ALTER TABLE … ALTER COLUMN … SET NOT NULL;")
        )


def _expressions(
    conn: psycopg.Connection, capture: CaptureFile, table: TableShape, mistakes: list[RefoldError]
) -> None:
    told: set[tuple[str, str]] = set()
    for operation, expressions in capture.expressions.items():
        for field, text in expressions.items():
            key = capture.key_of(operation, field)
            problem = _problem(conn, table, operation, field, text)
            if problem is not None and (key, problem[0]) not in told:
                told.add((key, problem[0]))
                mistakes.append(capture.wrong(key, *problem))


def _problem(
    conn: psycopg.Connection, table: TableShape, operation: Operation, field: str, text: str
) -> tuple[str, str | None] | None:
    """Return what is wrong with an expression, and the remedy; None if Postgres takes it."""
    assert field in FIELDS
    on = f"{ident(table.schema)}.{ident(table.name)}"
    rows = _ROWS[operation]
    source = ", ".join(f"{on} AS {row}" for row in rows) or "(SELECT) AS nothing"
    # In a WHERE clause Postgres refuses aggregates and sets of rows. In two places, no text can close the parenthesis.
    query = f"SELECT (\n{text}\n) AS value FROM {source} WHERE (\n{text}\n) IS NULL LIMIT 0"
    try:
        with conn.transaction(force_rollback=True):
            conn.execute("SET LOCAL search_path = pg_catalog, pg_temp")
            cursor = conn.execute(query.replace("%", "%%").encode(), {}, prepare=False)
            described = cursor.description or []
            (name,) = conn.execute("SELECT format_type(%s::oid, NULL)", (described[0].type_code,)).fetchone() or ("?",)
    except psycopg.Error as error:
        if error.sqlstate is None or error.sqlstate[:2] in ("08", "57"):
            raise
        return _told(error, table, operation, text)
    wanted = _TYPES[field]
    if wanted and name not in wanted:
        remedies = {
            "time": "Name the zone of a time without one: (…) AT TIME ZONE 'UTC'; and cast a text: (…)::timestamptz.",
            "metadata": "Use jsonb_build_object('name', new.column, …), or cast it: (…)::jsonb.",
        }
        return f"must be of the type {wanted[0]}, not {name}", remedies[field]
    return None


def _told(error: psycopg.Error, table: TableShape, operation: Operation, text: str) -> tuple[str, str | None]:
    message = f"Postgres says: {error.diag.message_primary or error}"
    names = [one.name for one in table.columns]
    rows = _ROWS[operation]
    if isinstance(error, psycopg.errors.UndefinedTable) and operation != "truncate":
        other = "old" if operation == "delete" else "new"
        return (
            f"{message} (in {operation})",
            f"For {operation} there is {' and '.join(rows)}: add [{operation}] with an expression of its own over"
            f" {other}, or use row, which is the new row, or the deleted one.",
        )
    if isinstance(error, psycopg.errors.UndefinedColumn):
        for found in _REFERENCE.findall(text):
            name = found[1:-1].replace('""', '"') if found.startswith('"') else found.lower()
            close = closest(name, names)
            if name not in names and close is not None:
                return f"{message}. Did you mean {close}?", f"{table.name} has {', '.join(names)}."
        return message, f"Write new.COLUMN, old.COLUMN or row.COLUMN; {table.name} has {', '.join(names)}."
    if isinstance(error, psycopg.errors.AmbiguousColumn):
        return message, "Write new.COLUMN, old.COLUMN or row.COLUMN."
    if isinstance(error, psycopg.errors.UndefinedFunction):
        return message, "Write a function of your own with its schema, and check the types of its arguments."
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return message, "Expressions run as refold_capture: GRANT what they read to this role."
    return message, error.diag.message_hint
