"""Installing refold's schema, or bringing it up to this version.

`sql/` says what the database is and is applied anew at every migration; `migrations/` says how its tables
got there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random

from refold.errors import DatabaseError
from refold.postgres.connect import ROLES, connect, connection
from refold.postgres.locks import WAIT_S, alone
from refold.postgres.replica_identity import give_identities
from refold.postgres.retry import in_short_attempts
from refold.postgres.sqlstate import transient
from refold.postgres.standby import refuse
from refold.store.schema.resources import migrations_dir, sql_dir

if TYPE_CHECKING:
    from alembic.config import Config

# Applied in this order; within a folder, functions may refer to each other freely.
_FOLDERS = ("functions", "aggregates", "monitoring", "triggers")
LOCK_WAIT_S = 60.0
"""Seconds for which a migration tries to get its short locks."""
_VERSION = "refold.alembic_version"
"""Whoever migrates has a lock on it."""

# What Postgres says to the second of two that make the same thing at once, "tuple concurrently updated" among it.
_AT_ONCE = (
    psycopg.errors.UniqueViolation,
    psycopg.errors.DuplicateSchema,
    psycopg.errors.DuplicateTable,
    psycopg.errors.DuplicateObject,
    psycopg.errors.InternalError_,
)


def migrate(url: str, *, seconds: float = WAIT_S) -> None:
    """Installs refold's schema, or brings it up to this version; safe to run again and at once from many places.

    Args:
        url: a libpq URL; its login role must be a superuser, or own the database and have CREATEROLE.
        seconds: for how long to wait for another migration.

    Raises:
        DatabaseError: the server is older than PostgreSQL 15; the database is not in UTF-8; a proxy stands in between.
        OnStandby: the server is a standby.
        BuildError: another migration is at it.
    """
    with connection(url, autocommit=True, application_name="refold migrate") as conn:
        if conn.info.server_version < 150000:
            raise DatabaseError(f"PostgreSQL {conn.info.server_version // 10000} is too old: refold needs 15 or newer")
        refuse(conn)
        _insist_on_utf8(conn)
        try:
            _begin(conn)
            with alone(conn, _VERSION, "migrate", "refold_owner", seconds=seconds):
                _install(conn, url)
        except psycopg.errors.InsufficientPrivilege as error:
            raise DatabaseError(
                f"{conn.info.user} may not install refold here: {error.diag.message_primary}",
                remedy=f'As a superuser: GRANT {", ".join(ROLES)} TO "{conn.info.user}" WITH ADMIN OPTION; '
                "and let it own the database.",
            ) from error
        except psycopg.Error as error:
            if transient(error):
                raise
            raise DatabaseError(
                f"the migration failed, and its last step was taken back: {error.diag.message_primary or error}",
                remedy="If a restore stopped half-way, restore again into an empty database, then migrate. Where "
                "pg_restore was refused something (permission denied, a role that does not exist): with --no-owner "
                "--no-privileges; migrate gives everything to its roles.",
            ) from error


def _insist_on_utf8(conn: psycopg.Connection) -> None:
    """Refuses a database that cannot hold every text of an event, or does not know what it holds."""
    encoding = conn.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise DatabaseError(
            f"the database {conn.info.dbname} is in {encoding}, and refold needs UTF8: not every event could be stored",
            remedy="Make one for it: CREATE DATABASE refold TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8';",
        )


def _begin(conn: psycopg.Connection) -> None:
    """Makes what there must be before there can be a lock; many may do so at once."""
    # It may be there without the roles, and be somebody else's: after a restore without owners.
    if conn.execute(
        "SELECT FROM pg_class AS c"
        " JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_roles AS r ON r.oid = c.relowner"
        " WHERE n.nspname || '.' || c.relname = %s AND r.rolname = 'refold_owner'",
        (_VERSION,),
    ).rowcount:
        return
    attempts = Retrying(
        retry=retry_if_exception_type(_AT_ONCE), wait=wait_random(0.05, 0.3), stop=stop_after_attempt(20), reraise=True
    )
    for attempt in attempts:
        with attempt, conn.transaction():
            _apply(conn, sql_dir() / "roles" / "roles.sql")
            conn.execute("CREATE SCHEMA IF NOT EXISTS refold AUTHORIZATION refold_owner")
            _apply(conn, sql_dir() / "roles" / "owners.sql")
            conn.execute("SET LOCAL ROLE refold_owner")
            # As alembic makes it.
            conn.execute(
                f"CREATE TABLE IF NOT EXISTS {_VERSION} ("
                "version_num character varying(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
            )


def _install(conn: psycopg.Connection, url: str) -> None:
    _apply(conn, sql_dir() / "roles" / "roles.sql")
    conn.execute("CREATE SCHEMA IF NOT EXISTS refold AUTHORIZATION refold_owner")
    conn.execute("CREATE SCHEMA IF NOT EXISTS refold_builds AUTHORIZATION refold_worker")
    conn.execute("CREATE SCHEMA IF NOT EXISTS metrics AUTHORIZATION refold_worker")
    _apply(conn, sql_dir() / "roles" / "owners.sql")
    # For migrations of older versions.
    conn.execute("GRANT USAGE, CREATE ON SCHEMA metrics TO refold_owner")
    conn.execute("GRANT USAGE ON SCHEMA metrics TO refold_analyst, refold_observer")
    _alembic_upgrade(url)
    try:
        # A trigger on the log waits for every open writer.
        in_short_attempts(conn, LOCK_WAIT_S, lambda: _apply_objects(conn))
        give_identities(conn, LOCK_WAIT_S)
    except psycopg.errors.LockNotAvailable as error:
        raise DatabaseError(
            f"transactions have kept refold's tables from being changed for {LOCK_WAIT_S:.0f} s",
            remedy="End those that are open for long (`refold status` names them), then migrate again.",
        ) from error


def _apply_objects(conn: psycopg.Connection) -> None:
    """Makes functions, triggers, views and grants what `sql/` says."""
    conn.execute("SET LOCAL ROLE refold_owner")
    # They refer to each other, whatever they are called.
    conn.execute("SET LOCAL check_function_bodies = off")
    for folder in _FOLDERS:
        for path in sorted((sql_dir() / folder).glob("*.sql")):
            _apply(conn, path)
    _apply(conn, sql_dir() / "roles" / "grants.sql")
    # What stands in `metrics` is the worker's, as the schema is: a restore makes views before it grants anything.
    conn.execute("SET LOCAL ROLE NONE")
    conn.execute("ALTER VIEW IF EXISTS metrics.freshness OWNER TO refold_worker")
    conn.execute("SET LOCAL ROLE refold_worker")
    for path in sorted((sql_dir() / "metrics").glob("*.sql")):
        _apply(conn, path)
    conn.execute("SET LOCAL ROLE refold_owner")
    conn.execute("SELECT refold.arm_guards()")
    conn.execute("UPDATE refold.settings SET hash_probe = refold.hash_probe() WHERE hash_probe IS NULL")
    conn.execute("SELECT refold.ensure_segments()")


def _apply(conn: psycopg.Connection, path: Path) -> None:
    """Runs one file of `sql/`."""
    try:
        conn.execute(path.read_text(encoding="utf-8").encode())
    except (psycopg.errors.LockNotAvailable, psycopg.errors.InsufficientPrivilege, *_AT_ONCE):
        raise
    except psycopg.Error as error:
        raise DatabaseError(f"{path}: {error}") from error


def _alembic_upgrade(url: str) -> None:
    from alembic import command
    from alembic.util import CommandError
    from sqlalchemy.exc import DBAPIError

    try:
        command.upgrade(alembic_config(url), "head")
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.Error):
            raise error.orig from None
        raise
    except CommandError as error:
        raise DatabaseError(
            f"this refold cannot migrate the database: {error}",
            remedy="It was made by another version: migrate with that one, or start with an empty database and append"
            " the events again.",
        ) from error


def for_alembic(url: str) -> psycopg.Connection:
    """A connection for alembic, which takes what the search path shows for unqualified."""
    return connect(url, application_name="refold migrate", settings={"search_path": "public"})


def alembic_config(url: str) -> Config:
    """alembic's configuration for this database, without an ini file."""
    # Imported here: alembic and SQLAlchemy take half a second, which every command would pay at its start.
    from alembic.config import Config
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    config = Config()
    config.set_main_option("script_location", os.fspath(migrations_dir()).replace("%", "%%"))
    config.attributes["engine"] = create_engine(
        "postgresql+psycopg://", creator=lambda: for_alembic(url), poolclass=NullPool
    )
    return config
