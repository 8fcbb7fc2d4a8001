"""Installation and upgrade of refold's schema.

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
from refold.postgres.lock_waits import LockWatch
from refold.postgres.locks import WAIT_S, alone
from refold.postgres.replica_identity import give_identities
from refold.postgres.retry import in_short_attempts
from refold.postgres.sqlstate import transient
from refold.postgres.standby import refuse
from refold.store.schema import pgmq
from refold.store.schema.resources import migrations_dir, sql_dir

if TYPE_CHECKING:
    from alembic.config import Config

# Applied in this order; within a folder, functions may refer to each other freely.
_FOLDERS = ("functions", "aggregates", "monitoring", "triggers")
LOCK_WAIT_S = 60.0
"""Seconds for which a migration tries to take its short locks."""
_VERSION = "refold.alembic_version"
"""Table that a running migration locks."""

# What Postgres says to the second of two that make the same thing at once, "tuple concurrently updated" among it.
_AT_ONCE = (
    psycopg.errors.UniqueViolation,
    psycopg.errors.DuplicateSchema,
    psycopg.errors.DuplicateTable,
    psycopg.errors.DuplicateObject,
    psycopg.errors.InternalError_,
)


def migrate(url: str, *, seconds: float = WAIT_S) -> None:
    """Install refold's schema, or upgrade it to this version; idempotent, and safe to run concurrently.

    Args:
        url: a libpq URL; its login role must be a superuser, or own the database and have CREATEROLE.
        seconds: for how long to wait for another migration.

    Raises:
        DatabaseError: the server is older than PostgreSQL 15; the database is not in UTF-8; a proxy stands in between.
        OnStandby: the server is a standby.
        BuildError: another migration is running.
    """
    with connection(url, autocommit=True, application_name="refold migrate") as conn, LockWatch(conn):
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
                f"the migration failed, and its last step was rolled back: {error.diag.message_primary or error}",
                remedy="After an incomplete restore, restore again into an empty database, then run `refold migrate`. "
                "If pg_restore lacked a permission or a role, add --no-owner --no-privileges; `refold migrate` sets "
                "the owners and privileges.",
            ) from error


def _insist_on_utf8(conn: psycopg.Connection) -> None:
    """Raise an error if the database's encoding is not UTF8, which every event's text needs."""
    encoding = conn.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise DatabaseError(
            f"the database {conn.info.dbname} has the encoding {encoding}, but refold needs UTF8 to store every event",
            remedy="Create another: CREATE DATABASE refold TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8';",
        )


def _begin(conn: psycopg.Connection) -> None:
    """Create the objects that the migration lock needs; safe to run concurrently."""
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
    conn.execute("CREATE SCHEMA IF NOT EXISTS refold_captures AUTHORIZATION refold_capture")
    conn.execute("CREATE SCHEMA IF NOT EXISTS refold_backfill AUTHORIZATION refold_backfill")
    conn.execute("CREATE SCHEMA IF NOT EXISTS metrics AUTHORIZATION refold_worker")
    conn.execute("CREATE SCHEMA IF NOT EXISTS metrics_canary AUTHORIZATION refold_worker")
    _apply(conn, sql_dir() / "roles" / "owners.sql")
    # For migrations of older versions.
    conn.execute("GRANT USAGE, CREATE ON SCHEMA metrics TO refold_owner")
    conn.execute("GRANT USAGE ON SCHEMA metrics TO refold_analyst, refold_observer")
    conn.execute("GRANT USAGE ON SCHEMA refold_backfill TO refold_worker, refold_inspector")
    conn.execute("GRANT USAGE ON SCHEMA metrics_canary TO refold_analyst, refold_inspector")
    pgmq.install(conn)
    _alembic_upgrade(url)
    try:
        # A trigger on the log waits for every open writer.
        in_short_attempts(conn, LOCK_WAIT_S, lambda: _apply_objects(conn))
        give_identities(conn, LOCK_WAIT_S)
    except psycopg.errors.LockNotAvailable as error:
        raise DatabaseError(
            f"open transactions blocked changes of refold's tables for {LOCK_WAIT_S:.0f} s",
            remedy="End the transactions that `refold status` names, then run `refold migrate` again.",
        ) from error


def _apply_objects(conn: psycopg.Connection) -> None:
    """Create or replace the functions, triggers, views and grants in `sql/`."""
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
    _apply(conn, sql_dir() / "roles" / "worker_grants.sql")
    conn.execute("SET LOCAL ROLE refold_owner")
    conn.execute("SELECT refold.arm_guards()")
    conn.execute("UPDATE refold.settings SET hash_probe = refold.hash_probe() WHERE hash_probe IS NULL")
    conn.execute("SELECT refold.ensure_segments()")


def _apply(conn: psycopg.Connection, path: Path) -> None:
    """Run one file of `sql/`."""
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
            remedy="Another version of refold installed it: migrate with that version, or append the events to an empty"
            " database.",
        ) from error


def for_alembic(url: str) -> psycopg.Connection:
    """Open a connection for alembic, which treats objects on the search path as unqualified."""
    conn = connect(url, application_name="refold migrate", settings={"search_path": "public"})
    # It ends with the connection, which is alembic's.
    LockWatch(conn)
    return conn


def alembic_config(url: str) -> Config:
    """Return alembic's configuration for this database, without an ini file."""
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
