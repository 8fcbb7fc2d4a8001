"""What the tests of duties share."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from refold.store.incidents import Incident, find
from tests.support.law import worker_connection

Connection = psycopg.Connection[Any]


@pytest.fixture
def worker(database_url: str) -> Iterator[Connection]:
    """A worker's connection, in autocommit mode."""
    with worker_connection(database_url) as conn:
        yield conn


@pytest.fixture
def limit(admin: Connection) -> Callable[..., None]:
    """Sets limits by name."""

    def limit(**values: int) -> None:
        for name, value in values.items():
            admin.execute(f"UPDATE refold.settings SET {name} = %s".encode(), (value,))

    return limit


@pytest.fixture
def incidents(worker: Connection) -> Callable[[str], list[Incident]]:
    """The incidents of a kind, oldest first."""
    return lambda kind: find(worker, "i.kind = %s", kind)
