"""A query that always has a row: the row, or an error that shows the query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg.rows import class_row

from refold.postgres.rows import NoRow, one_row

Connection = psycopg.Connection[Any]


@dataclass
class Pair:
    a: int
    b: str


def test_a_tuple_or_what_the_caller_makes_of_it(admin: Connection) -> None:
    assert one_row(admin, "SELECT 1, 'x'") == (1, "x")
    assert one_row(admin, b"SELECT %s, %s", (1, "x"), prepare=True) == (1, "x")
    assert one_row(admin, "SELECT 1 AS a, 'x' AS b", row=class_row(Pair)) == Pair(1, "x")


@pytest.mark.parametrize(
    "query", ["SELECT 1\n   WHERE false", b"SELECT 1\n   WHERE false", psycopg.sql.SQL("SELECT 1\n   WHERE false")]
)
def test_an_error_shows_the_query_that_has_no_row(admin: Connection, query: str | bytes | psycopg.sql.SQL) -> None:
    with pytest.raises(NoRow, match=r": SELECT 1 WHERE false$"):
        one_row(admin, query)
