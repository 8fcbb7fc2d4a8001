"""Rows as a function gets them: what of one cannot be decoded is the fault of its event, like all that follows.

An event that was stored before there were limits, or a row of another projection, may hold what Postgres can print and
Python cannot read: an integer of 5,000 digits, a structure of 3,000 levels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import JsonbLoader, JsonLoader

from refold.projections.transform import FunctionFailed


def decoded(conn: psycopg.Connection, query: str, parameters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of a statement, in order.

    Args:
        conn: the caller's transaction.
        query: the statement.
        parameters: by name.

    Raises:
        FunctionFailed: one of them cannot be decoded.
    """
    with conn.cursor(row_factory=dict_row) as cursor:
        # Not as a session shows it to people: there a value that cannot be read becomes another one, and a function
        # might take it.
        cursor.adapters.register_loader("jsonb", JsonbLoader)
        cursor.adapters.register_loader("json", JsonLoader)
        cursor.execute(query.encode(), parameters, prepare=True)
        try:
            yield from cursor
        except psycopg.OperationalError:
            raise
        except Exception as error:
            raise FunctionFailed(error) from error
