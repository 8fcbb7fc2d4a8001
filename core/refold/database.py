"""The database itself: connections in a role, and the schema's installation.

`sql/` says what the database is and is applied anew at every migration; `migrations/` says how its tables
got there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psycopg
from psycopg import sql
from psycopg.types.json import set_json_loads

from refold.cluster import bearings
from refold.errors import DatabaseError, ForeignCluster, NotInstalled
from refold.exact_json import readable
from refold.pooling import look_for_proxy
from refold.resources import migrations_dir, sql_dir
from refold.retry import in_short_attempts
from refold.silence import answering

if TYPE_CHECKING:
    from alembic.config import Config

Role = Literal["refold_owner", "refold_producer", "refold_worker", "refold_analyst"]

# Applied in this order; within a folder, functions may refer to each other freely.
_FOLDERS = ("functions", "aggregates", "monitoring", "triggers")
PATIENCE = 60.0
"""Seconds for which a migration tries to get its short locks."""
_MIGRATION_LOCK = 8246178264892741635

CONNECT_S = 10
"""Seconds that a server may take to let a session in."""

# What a session of refold's own needs: days are UTC days whatever the server says, plans must not depend on
# how far a cursor has got, and a worker frozen in mid-transaction must not hold its build for ever.
SESSION = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "search_path": "refold, pg_catalog, pg_temp",
}


def connect(
    url: str,
    role: Role | None = None,
    *,
    autocommit: bool = False,
    application_name: str = "refold",
    settings: dict[str, str] | None = None,
) -> psycopg.Connection:
    """Opens a connection that acts as one of refold's roles.

    Args:
        url: a libpq URL or connection string.
        role: the role to act as; None stays the login role.
        settings: further session settings by name.

    Raises:
        DatabaseError: the login role may not act as `role`.
        psycopg.OperationalError: the server cannot be reached.
    """
    conn = psycopg.connect(
        url,
        autocommit=True,
        application_name=application_name,
        connect_timeout=CONNECT_S,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=30_000,
    )
    try:
        with answering(conn, CONNECT_S):
            look_for_proxy(conn)
            if role is not None:
                conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
            for name, value in {**SESSION, **(settings or {})}.items():
                conn.execute("SELECT set_config(%s, %s, false)", (name, value))
    except psycopg.errors.InsufficientPrivilege as error:
        user = conn.info.user
        conn.close()
        raise DatabaseError(f"{user} may not act as {role}", remedy=f'GRANT {role} TO "{user}";') from error
    except psycopg.errors.InvalidParameterValue as error:
        # What SET ROLE says of a role that is not there.
        conn.close()
        raise NotInstalled(
            f"refold is not installed on this server: it has no role {role}", remedy="Run `refold migrate` first."
        ) from error
    except BaseException:
        conn.close()
        raise
    # What people are shown must not fail because of one value.
    set_json_loads(readable, conn)
    conn.autocommit = autocommit
    return conn


@contextmanager
def connection(
    url: str, role: Role | None = None, *, autocommit: bool = False, application_name: str = "refold"
) -> Iterator[psycopg.Connection]:
    """`connect` for a with statement; closes without commit (whoever opens a transaction owns it)."""
    conn = connect(url, role, autocommit=autocommit, application_name=application_name)
    try:
        yield conn
    finally:
        conn.close()


def migrate(url: str) -> None:
    """Installs refold's schema, or brings it up to this version; safe to run again and at once from many places.

    Args:
        url: a libpq URL; its login role must be a superuser, or own the database and have CREATEROLE.

    Raises:
        DatabaseError: the server is older than PostgreSQL 15.
    """
    with connection(url, autocommit=True, application_name="refold migrate") as conn:
        if conn.info.server_version < 150000:
            raise DatabaseError(f"PostgreSQL {conn.info.server_version // 10000} is too old: refold needs 15 or newer")
        try:
            _install(conn, url)
        except psycopg.errors.InsufficientPrivilege as error:
            roles = "refold_owner, refold_producer, refold_worker, refold_analyst"
            raise DatabaseError(
                f"{conn.info.user} may not install refold here: {error.diag.message_primary}",
                remedy=f'As a superuser: GRANT {roles} TO "{conn.info.user}"; and let it own the database.',
            ) from error


def _install(conn: psycopg.Connection, url: str) -> None:
    # A session lock: alembic works on a connection of its own.
    conn.execute("SELECT pg_advisory_lock(%s)", (_MIGRATION_LOCK,))
    _apply(conn, sql_dir() / "roles" / "roles.sql")
    conn.execute("CREATE SCHEMA IF NOT EXISTS refold AUTHORIZATION refold_owner")
    conn.execute("CREATE SCHEMA IF NOT EXISTS refold_builds AUTHORIZATION refold_worker")
    conn.execute("CREATE SCHEMA IF NOT EXISTS metrics AUTHORIZATION refold_worker")
    conn.execute("GRANT USAGE, CREATE ON SCHEMA metrics TO refold_owner")
    conn.execute("GRANT USAGE ON SCHEMA metrics TO refold_analyst")
    _alembic_upgrade(url)
    try:
        # A trigger on the log waits for every open writer.
        in_short_attempts(conn, PATIENCE, lambda: _apply_objects(conn))
    except psycopg.errors.LockNotAvailable as error:
        raise DatabaseError(
            f"transactions have kept refold's tables from being changed for {PATIENCE:.0f} s",
            remedy="End those that are open for long (`refold status` names them), then migrate again.",
        ) from error


def _apply_objects(conn: psycopg.Connection) -> None:
    """Makes functions, triggers, views and grants what `sql/` says."""
    conn.execute("SET LOCAL ROLE refold_owner")
    for folder in _FOLDERS:
        for path in sorted((sql_dir() / folder).glob("*.sql")):
            _apply(conn, path)
    _apply(conn, sql_dir() / "roles" / "grants.sql")
    conn.execute("SELECT refold.ensure_segments()")


def check(conn: psycopg.Connection) -> None:
    """Refuses a database whose schema is missing or whose coordinates mean nothing here.

    Raises:
        NotInstalled: no schema here, or an older one.
        ForeignCluster: the data came from another cluster, or speaks of transactions that this one has not had:
            a restore happened, and a cursor would skip events.
    """
    installed = conn.execute("SELECT to_regclass('refold.settings') IS NOT NULL").fetchone()
    if installed is None or not installed[0]:
        raise NotInstalled("refold is not installed in this database", remedy="Run `refold migrate` first.")
    found = bearings(conn)
    if found is None:
        raise NotInstalled("refold's settings are missing", remedy="Run `refold migrate` first.")
    why = found.why()
    if why is not None:
        raise ForeignCluster(
            why,
            remedy="`refold recover --dry-run` says what it would do about it; `refold recover` does it.",
        )


def _apply(conn: psycopg.Connection, path: Path) -> None:
    """Runs one file of `sql/`."""
    try:
        conn.execute(path.read_text(encoding="utf-8").encode())
    except psycopg.errors.LockNotAvailable:
        raise
    except psycopg.Error as error:
        raise DatabaseError(f"{path}: {error}") from error


def _alembic_upgrade(url: str) -> None:
    from alembic import command

    command.upgrade(alembic_config(url), "head")


def alembic_config(url: str) -> Config:
    """alembic's configuration for this database, without an ini file."""
    # Imported here: alembic and SQLAlchemy take half a second, which every command would pay at its start.
    from alembic.config import Config
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    config = Config()
    config.set_main_option("script_location", os.fspath(migrations_dir()).replace("%", "%%"))
    config.attributes["engine"] = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=NullPool
    )
    return config
