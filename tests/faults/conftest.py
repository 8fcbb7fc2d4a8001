"""What the tests of faults share."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from refold.database import connect as connect_as

Connection = psycopg.Connection[Any]


@pytest.fixture
def producers(database_url: str) -> Iterator[Callable[..., Connection]]:
    """Makes connections that act as a producer."""
    opened: list[Connection] = []

    def connect(**options: Any) -> Connection:
        opened.append(connect_as(database_url, "refold_producer", **options))
        return opened[-1]

    yield connect
    for conn in opened:
        conn.close()


@pytest.fixture
def producer(producers: Callable[..., Connection]) -> Connection:
    """A connection that acts as a producer."""
    return producers()


@pytest.fixture
def admin(conn: Connection) -> Connection:
    """A superuser's connection in autocommit mode."""
    conn.autocommit = True
    return conn


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that wait for time to pass fail the test."""

    def sleep(seconds: float) -> None:
        raise AssertionError(f"a worker waits {seconds} s")

    monkeypatch.setattr("refold.worker.loop.time.sleep", sleep)
