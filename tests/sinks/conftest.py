"""The receivers of sinks: a database, and a webhook."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.support.delivering import SECRET, Connection
from tests.support.receiving import Hook, hook
from tests.support.scratch import Scratch


@pytest.fixture
def target(scratch: Scratch) -> Iterator[Connection]:
    """Another database on the same server."""
    with psycopg.connect(scratch.url, autocommit=True) as admin:
        name = f"{admin.info.dbname}_target"[-60:]
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            with psycopg.connect(make_conninfo(scratch.url, dbname=name), autocommit=True) as conn:
                yield conn
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    """A receiver of webhooks, whose secret is in the environment variable SECRET."""
    monkeypatch.setenv("SECRET", SECRET)
    with hook() as made:
        yield made
