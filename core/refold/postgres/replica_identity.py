"""Replica identities, which a published table needs before Postgres allows an update or delete of its rows.

`CREATE PUBLICATION … FOR ALL TABLES` is what tools of change data capture make, and from that moment Postgres refuses
to change a row of a table by which a subscriber could not tell it. A primary key is such an identity. Tables of builds
have none: a key's columns may be NULL; the whole old row tells them, and costs only where `wal_level` is logical.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from refold.postgres.retry import in_short_attempts

IDENTITY = "REPLICA IDENTITY FULL"

_LACKING = """
SELECT format('%I.%I', n.nspname, c.relname) AS name, r.rolname::text AS owner
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_roles AS r ON r.oid = c.relowner
WHERE n.nspname IN ('refold', 'refold_builds') AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
  AND CASE c.relreplident
      WHEN 'f' THEN false
      WHEN 'i' THEN NOT EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisreplident)
      WHEN 'd' THEN NOT EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary)
      ELSE true
  END
ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Faceless:
    """A table without a replica identity.

    Args:
        name: qualified and quoted.
        owner: role that owns it.
    """

    name: str
    owner: str


def lacking(conn: psycopg.Connection) -> list[Faceless]:
    """Return refold's tables without a replica identity, whose rows a publication would lock."""
    return [Faceless(*row) for row in conn.execute(_LACKING).fetchall()]


def give_identities(conn: psycopg.Connection, seconds: float) -> None:
    """Set a replica identity on each table that lacks one, such as tables of older builds or of a restore.

    Args:
        conn: in autocommit mode; its login may act as the tables' owners.
        seconds: longest time to try for each table, whose lock excludes readers for a moment.

    Raises:
        psycopg.errors.LockNotAvailable: another transaction held a table all the time.
    """
    for one in lacking(conn):

        def give(one: Faceless = one) -> None:
            conn.execute(psycopg.sql.SQL("SET LOCAL ROLE {}").format(psycopg.sql.Identifier(one.owner)))
            # Dropped meanwhile, perhaps.
            conn.execute(f"ALTER TABLE IF EXISTS {one.name} {IDENTITY}".encode())

        in_short_attempts(conn, seconds, give)
