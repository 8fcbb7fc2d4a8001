"""Old snapshots, which keep vacuum from removing dead rows.

A transaction that only reads holds up nobody's events, but while its snapshot is kept, every version that a page makes
of a row stays, and has to be stepped over. So do prepared transactions, replication slots and standbys that report
their own queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import psycopg
from psycopg.rows import class_row

HARMLESS = 1_000
"""Transactions that may have begun since a snapshot was taken before anybody looks at its age in seconds: one that is
taken anew for each statement of a long transaction is always young."""
UNDATED = 100_000
"""Transactions after which a snapshot of unknown age is old: that of a slot or a standby."""

What = Literal["session", "prepared transaction", "replication slot", "standby"]


@dataclass(frozen=True, slots=True)
class Held:
    """A snapshot or open transaction that blocks vacuum.

    Args:
        what: kind of holder.
        name: process id, gid, or name of the slot or standby.
        transactions: number of transactions that started since.
        seconds: greatest possible age; None if unknown.
        since: earliest possible start.
        application: application of the session.
        owner: its database role.
    """

    what: What
    name: str
    transactions: int
    seconds: float | None
    since: datetime | None
    application: str
    owner: str

    def old(self, limit: float) -> bool:
        """Return whether it has been held for longer than a limit in seconds. Pure."""
        if self.seconds is None:
            return self.transactions >= UNDATED
        return self.seconds > limit and self.transactions >= HARMLESS

    @property
    def subject(self) -> str:
        """Return its name in an incident."""
        return f"{self.what} {self.name}"

    @property
    def remedy(self) -> str:
        """Return the statement that ends it."""
        quoted = self.name.replace("'", "''")
        return {
            "session": f"SELECT pg_terminate_backend({self.name});",
            "prepared transaction": f"ROLLBACK PREPARED '{quoted}'; or COMMIT PREPARED '{quoted}'; in its database.",
            "replication slot": f"connect its reader, or SELECT pg_drop_replication_slot('{quoted}');",
            "standby": f"end the long query on {self.name}, or set hot_standby_feedback = off there.",
        }[self.what]


# What this session holds ends with the statement. Slots and prepared transactions are shown to everybody, sessions and
# standbys to logins with pg_read_all_stats alone.
_HELD = """
SELECT 'session' AS what, a.pid::text AS name,
       greatest(age(a.backend_xmin), age(a.backend_xid)) AS transactions,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds, a.xact_start AS since,
       coalesce(a.application_name, '') AS application, coalesce(a.usename, '')::text AS owner
FROM pg_stat_activity AS a
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_type <> 'autovacuum worker'
  AND (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL)
UNION ALL
SELECT 'prepared transaction', p.gid, age(p.transaction),
       extract(epoch FROM clock_timestamp() - p.prepared)::float8, p.prepared, '', p.owner::text
FROM pg_prepared_xacts AS p
WHERE p.database = current_database()
UNION ALL
SELECT 'replication slot', s.slot_name::text, greatest(age(s.xmin), age(s.catalog_xmin)), NULL, NULL,
       coalesce(s.plugin, '')::text, ''
FROM pg_replication_slots AS s
WHERE (s.xmin IS NOT NULL OR s.catalog_xmin IS NOT NULL)
  AND (s.database IS NULL OR s.database = current_database())
UNION ALL
SELECT 'standby', coalesce(nullif(r.application_name, ''), r.pid::text), age(r.backend_xmin), NULL, NULL,
       coalesce(host(r.client_addr), ''), coalesce(r.usename, '')::text
FROM pg_stat_replication AS r
WHERE r.backend_xmin IS NOT NULL
ORDER BY transactions DESC
"""


def held(conn: psycopg.Connection) -> list[Held]:
    """Return all holders of snapshots that the login role may see, oldest snapshot first.

    Args:
        conn: the caller's transaction; from here on it acts as the login role, because only that role may see other
            sessions.
    """
    conn.execute("SET LOCAL ROLE NONE")
    with conn.cursor(row_factory=class_row(Held)) as cursor:
        return cursor.execute(_HELD).fetchall()


def old(conn: psycopg.Connection, limit: float) -> list[Held]:
    """Return the snapshots held for longer than `held_snapshot_after`; empty if the login may not see them.

    Args:
        conn: in autocommit mode.
        limit: how long is too long, seconds: `Settings.held_snapshot_after`.
    """
    with conn.transaction():
        return [one for one in held(conn) if one.old(limit)]
