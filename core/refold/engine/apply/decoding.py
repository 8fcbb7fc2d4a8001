"""Rows as a function gets them: what of one cannot be decoded is the fault of its event, like all that follows.

An event that was stored before there were limits, or a row of another projection, may hold what Postgres can print and
Python cannot read: an integer of 5,000 digits, a structure of 3,000 levels.
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
    """The rows of a statement, in order.

    Args:
        conn: the caller's transaction.
        query: the statement.
        parameters: by name.
        portion: rows that are held in memory at a time; all of them by default.

    Raises:
        FunctionFailed: one of them cannot be decoded.
    """
    if portion is None:
        with conn.cursor(row_factory=dict_row) as cursor:
            _read_exactly(cursor)
            cursor.execute(query.encode(), parameters, prepare=True)
            yield from _rows(cursor)
        return
    # Else the planner takes it that only the first tenth of the rows is wanted.
    conn.execute("SET LOCAL cursor_tuple_fraction = 1")
    with conn.cursor("decoded", row_factory=dict_row) as held:
        _read_exactly(held)
        held.itersize = portion
        held.execute(query.encode(), parameters)
        yield from _rows(held)


def _read_exactly(cursor: psycopg.Cursor[Any] | psycopg.ServerCursor[Any]) -> None:
    """Not as people are shown it: there what cannot be read becomes another value, which a function might take."""
    cursor.adapters.register_loader("jsonb", JsonbLoader)
    cursor.adapters.register_loader("json", JsonLoader)


def _rows(cursor: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    try:
        yield from cursor
    except psycopg.Error:
        # What the server said of a FETCH: its SQLSTATE tells whose fault it is.
        raise
    except Exception as error:
        raise FunctionFailed(error) from error
