"""Proxies between a client and the server, and what one that pools transactions takes away.

Behind such a proxy (pgbouncer, pool_mode = transaction) each transaction may run in another session of the server.
So nothing that a session keeps can be relied on: no prepared statements, no LISTEN, no session locks, and no SET
either. Settings must come from the server: the login role has them, in every session that it gets.
"""

from __future__ import annotations

from collections.abc import Mapping

import psycopg

from refold.errors import DatabaseError


def look_for_proxy(conn: psycopg.Connection) -> None:
    """Finds out whether a proxy stands in between, and if so gives up prepared statements; they may be another's."""
    # A proxy gives its clients keys of its own.
    row = conn.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
    if row != (conn.info.backend_pid,):
        conn.prepare_threshold = None


def proxied(conn: psycopg.Connection) -> bool:
    """Whether `look_for_proxy` found one."""
    return conn.prepare_threshold is None


def insist_on_settings(conn: psycopg.Connection, settings: Mapping[str, str]) -> None:
    """Refuses a login whose sessions do not have these settings from the start.

    Args:
        conn: behind a proxy that pools transactions.
        settings: by name, `role` among them.

    Raises:
        DatabaseError: with the statements that give it to them.
    """
    # Not pg_settings: that speaks of the session, in which somebody may have SET them.
    row = conn.execute(
        """
        SELECT coalesce(array_agg(setting), '{}')
        FROM pg_db_role_setting AS s
        CROSS JOIN LATERAL unnest(s.setconfig) AS setting
        WHERE s.setrole = (SELECT oid FROM pg_roles WHERE rolname = session_user)
          AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
        """
    ).fetchone()
    assert row is not None
    there = {_plain(name): _plain(value) for name, _, value in (one.partition("=") for one in row[0])}
    lacking = {name: value for name, value in settings.items() if there.get(_plain(name)) != _plain(value)}
    if lacking:
        login = conn.execute("SELECT quote_ident(session_user)").fetchone()
        assert login is not None
        statements = " ".join(f"ALTER ROLE {login[0]} SET {name} = {value};" for name, value in _as_sql(lacking))
        raise DatabaseError(
            "there is a proxy that pools transactions, and this login's sessions start without refold's settings",
            remedy=f"Connect directly or in session mode; or, for a login that only workers use: {statements}",
        )


def _plain(text: str) -> str:
    """A name or value as the server may have spelt it."""
    return "".join(text.lower().replace('"', "").split())


def _as_sql(settings: Mapping[str, str]) -> list[tuple[str, str]]:
    """Settings as they are written in SQL: search_path is a list, the others are literals."""
    return [(name, value if name == "search_path" else f"'{value}'") for name, value in settings.items()]
