"""Login roles that are members of refold's roles."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql

from tests.conftest import ServerUnderTest

Connection = psycopg.Connection[Any]


@contextmanager
def login(server: ServerUnderTest, conn: Connection, *roles: str) -> Iterator[str]:
    """The URL of a login role of its own, a member of some roles and no superuser."""
    name = f"refold_test_{os.getpid()}"
    conn.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(sql.Identifier(name)))
    try:
        for role in roles:
            conn.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), sql.Identifier(name)))
        yield replace(server, user=name, password="secret").url_of(conn.info.dbname)
    finally:
        conn.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
        conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))
