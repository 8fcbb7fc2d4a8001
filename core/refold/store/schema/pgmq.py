"""The installation of pgmq, the message queue of sinks.

Where the server has pgmq as an extension, that is used; elsewhere the SQL that pgmq's package on PyPI carries, which
needs nothing on the server. What somebody else has installed is left as it is.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import psycopg

from refold.errors import DatabaseError
from refold.postgres.replica_identity import IDENTITY
from refold.postgres.rows import one_row

_STATE = """
SELECT (SELECT extversion FROM pg_extension WHERE extname = 'pgmq'),
       to_regnamespace('pgmq') IS NOT NULL,
       (SELECT default_version FROM pg_available_extensions WHERE name = 'pgmq'),
       obj_description(to_regnamespace('pgmq'), 'pg_namespace')
"""
_BY = "pgmq {}, installed by refold from pgmq's package on PyPI"


@dataclass(frozen=True, slots=True)
class Pgmq:
    """What a database has of pgmq.

    Args:
        extension: version of the extension; None if it is not an extension.
        present: whether its schema is there.
        available: version of the extension that the server offers; None if it does not.
        installed: version that refold has installed from the package; None if somebody else did, or nobody.
    """

    extension: str | None
    present: bool
    available: str | None
    installed: str | None


def state(conn: psycopg.Connection) -> Pgmq:
    """Return what the database has of pgmq."""
    extension, present, available, comment = one_row(conn, _STATE)
    words = (comment or "").split(",")[0].split()
    return Pgmq(extension, present, available, words[1] if (comment or "").startswith("pgmq ") else None)


def packaged_version() -> str:
    """Return the version of pgmq's SQL in the package on this machine."""
    return (_package() / "VERSION").read_text(encoding="utf-8").split()[0]


def install(conn: psycopg.Connection) -> None:
    """Install pgmq unless it is there.

    Args:
        conn: a migration's connection, in autocommit mode.
    """
    now = state(conn)
    if not now.present and now.available is not None:
        try:
            with conn.transaction():
                conn.execute("CREATE EXTENSION pgmq")
        except psycopg.errors.InsufficientPrivilege:
            pass
        now = state(conn)
    if not now.present:
        with conn.transaction():
            conn.execute("CREATE SCHEMA pgmq AUTHORIZATION refold_worker")
            # It asks for the schema again, for which Postgres wants this privilege even where it is there.
            database = psycopg.sql.Identifier(conn.info.dbname)
            conn.execute(psycopg.sql.SQL("GRANT CREATE ON DATABASE {} TO refold_worker").format(database))
            conn.execute("SET LOCAL ROLE refold_worker")
            conn.execute((_package() / "pgmq.sql").read_bytes())
            conn.execute("GRANT USAGE ON SCHEMA pgmq TO refold_inspector, refold_observer")
            # Without one, a publication of all tables would refuse to let a queue be dropped.
            conn.execute(b"ALTER TABLE pgmq.meta " + IDENTITY.encode())
            # It has a generated column, which from PostgreSQL 18 on must not be part of the identity.
            (index,) = one_row(
                conn,
                "SELECT c.relname FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid"
                " WHERE i.indrelid = 'pgmq.topic_bindings'::regclass AND i.indisunique AND i.indpred IS NULL LIMIT 1",
            )
            conn.execute(
                psycopg.sql.SQL("ALTER TABLE pgmq.topic_bindings REPLICA IDENTITY USING INDEX {}").format(
                    psycopg.sql.Identifier(index)
                )
            )
            conn.execute("SET LOCAL ROLE NONE")
            conn.execute(psycopg.sql.SQL("REVOKE CREATE ON DATABASE {} FROM refold_worker").format(database))
            comment = psycopg.sql.Literal(_BY.format(packaged_version()))
            conn.execute(psycopg.sql.SQL("COMMENT ON SCHEMA pgmq IS {}").format(comment))
        return
    if not _usable(conn):
        _grant(conn)


def _usable(conn: psycopg.Connection) -> bool:
    row = one_row(
        conn,
        "SELECT has_schema_privilege('refold_worker', 'pgmq', 'USAGE, CREATE')"
        " AND has_table_privilege('refold_worker', 'pgmq.meta', 'INSERT')",
    )
    return bool(row[0])


def _grant(conn: psycopg.Connection) -> None:
    """Let workers make queues in a pgmq that somebody else has installed."""
    try:
        with conn.transaction():
            conn.execute("GRANT USAGE, CREATE ON SCHEMA pgmq TO refold_worker")
            conn.execute("GRANT USAGE ON SCHEMA pgmq TO refold_inspector, refold_observer")
            conn.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pgmq TO refold_worker")
    except psycopg.errors.InsufficientPrivilege as error:
        raise DatabaseError(
            "pgmq is installed, but belongs to another role",
            remedy="As its owner: GRANT USAGE, CREATE ON SCHEMA pgmq TO refold_worker;"
            " GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pgmq TO refold_worker;",
        ) from error


def _package() -> Path:
    # To import the package takes 0.2 s, and nothing of it is needed but its SQL.
    found = importlib.util.find_spec("pgmq")
    if found is None or found.origin is None:
        raise DatabaseError("the package pgmq is missing", remedy="Reinstall refold.")
    return Path(found.origin).parent / "sql"
