"""What the tests of the log share."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from refold.database import connect as connect_as


@pytest.fixture
def producers(database_url: str) -> Iterator[Callable[..., psycopg.Connection[Any]]]:
    """Makes connections that act as a producer."""
    opened: list[psycopg.Connection[Any]] = []

    def connect(**options: Any) -> psycopg.Connection[Any]:
        opened.append(connect_as(database_url, "refold_producer", **options))
        return opened[-1]

    yield connect
    for conn in opened:
        conn.close()


@pytest.fixture
def producer(producers: Callable[..., psycopg.Connection[Any]]) -> psycopg.Connection[Any]:
    """A connection that acts as a producer."""
    return producers()


@pytest.fixture
def admin(conn: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A superuser's connection in autocommit mode."""
    conn.autocommit = True
    return conn
