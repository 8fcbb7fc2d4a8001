"""Rows of queries: the one that there always is, and numbers in JSON digit for digit."""

from __future__ import annotations

from typing import Any, LiteralString, TypeVar, overload

import psycopg
from psycopg import sql
from psycopg.abc import Params
from psycopg.rows import BaseRowFactory, TupleRow, tuple_row
from psycopg.types.json import set_json_loads

from refold.model.event.exact_json import readable_exactly

T = TypeVar("T")
C = TypeVar("C", bound=psycopg.Cursor[Any])
Query = LiteralString | bytes | sql.SQL | sql.Composed


class NoRow(Exception):
    """A query that always has a row had none: a row of refold's own is gone, or refold is wrong."""

    def __init__(self, query: str) -> None:
        super().__init__(f"no row where there is always one: {' '.join(query.split())}")
        self.query = query


@overload
def one_row(
    conn: psycopg.Connection[Any], query: Query, parameters: Params | None = None, *, prepare: bool | None = None
) -> TupleRow: ...
@overload
def one_row(
    conn: psycopg.Connection[Any],
    query: Query,
    parameters: Params | None = None,
    *,
    row: BaseRowFactory[T],
    prepare: bool | None = None,
) -> T: ...
def one_row(
    conn: psycopg.Connection[Any],
    query: Query,
    parameters: Params | None = None,
    *,
    row: BaseRowFactory[Any] = tuple_row,
    prepare: bool | None = None,
) -> Any:
    """Returns the first row of a query that always has one.

    Args:
        conn: the caller's transaction, or one in autocommit mode.
        query: what to run.
        parameters: of the query.
        row: what to make of the row, such as `class_row(Build)`; a tuple by default.
        prepare: as for `psycopg.Connection.execute`.

    Raises:
        NoRow: there was none.
    """
    found = conn.cursor(row_factory=row).execute(query, parameters, prepare=prepare).fetchone()
    if found is None:
        raise NoRow(_text(conn, query))
    return found


def exact(cursor: C) -> C:
    """Let a cursor read the numbers within `jsonb` digit for digit, fractions as Decimals, and return it."""
    set_json_loads(readable_exactly, cursor)
    return cursor


def _text(conn: psycopg.Connection[Any], query: Query) -> str:
    if isinstance(query, bytes):
        return query.decode()
    return query if isinstance(query, str) else query.as_string(conn)
