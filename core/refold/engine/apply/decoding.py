"""Decoding of rows for a Python function; a row that cannot be decoded counts as a failure of its event.

A value that Postgres can print may be one that Python cannot read, in an event from before there were limits or in a
row of another projection: an integer of 5,000 digits, a structure of 3,000 levels.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import JsonbLoader, JsonLoader

from refold.model.projection.failure import FunctionFailed


def decoded(
    conn: psycopg.Connection, query: str, parameters: Mapping[str, Any], *, portion: int | None = None
) -> Generator[dict[str, Any]]:
    """Yield the rows of a statement, in order.

    Args:
        conn: the caller's transaction.
        query: the statement.
        parameters: its parameters, by name.
        portion: rows to hold in memory at a time; by default, all rows.

    Raises:
        FunctionFailed: a row cannot be decoded.
    """
    if portion is None:
        with conn.cursor(row_factory=dict_row) as cursor:
            _read_exactly(cursor)
            cursor.execute(query.encode(), parameters, prepare=True)
            yield from _rows(cursor)
        return
    # By default the planner assumes that a cursor reads only the first tenth of the rows.
    conn.execute("SET LOCAL cursor_tuple_fraction = 1")
    with conn.cursor("decoded", row_factory=dict_row) as held:
        _read_exactly(held)
        held.itersize = portion
        held.execute(query.encode(), parameters)
        yield from _rows(held)


def _read_exactly(cursor: psycopg.Cursor[Any] | psycopg.ServerCursor[Any]) -> None:
    """Load JSON exactly: the loaders for display replace an unreadable value, and a function might accept that."""
    cursor.adapters.register_loader("jsonb", JsonbLoader)
    cursor.adapters.register_loader("json", JsonLoader)


def _rows(cursor: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    try:
        yield from cursor
    except psycopg.Error:
        # An error of the server during FETCH: its SQLSTATE tells whether the event caused it.
        raise
    except Exception as error:
        raise FunctionFailed(error) from error
