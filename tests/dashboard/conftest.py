"""A dashboard for each test, over a database in which something has happened."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.dashboard import Running, happened


@pytest.fixture
def eventful(database_url: str) -> str:
    """The URL of a database in which something has happened. The test is marked with `live("shop")`."""
    happened(database_url)
    return database_url


@pytest.fixture
def dashboard(eventful: str) -> Iterator[Running]:
    with Running(eventful) as running:
        yield running
