"""The shop of these tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from refold.store.builds.compiled import Compiler
from tests.support.law import worker_connection

from .prices import FOLDER, STRICT, Prices


@pytest.fixture
def shop(database_url: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Prices]:
    """A database in which prices have to be numbers; nothing is deployed yet."""
    conn.autocommit = True
    conn.execute(STRICT)
    with worker_connection(database_url) as worker:
        yield Prices(database_url, conn, worker, Compiler(FOLDER), monkeypatch)


@pytest.fixture
def prices(shop: Prices) -> Prices:
    """The same with everything live."""
    shop.deploy()
    return shop
