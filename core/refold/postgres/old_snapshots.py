"""Who keeps vacuum from removing what is dead: old snapshots, wherever they are held.

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
"""Transactions after which one is old of which nobody says since when it is held: a slot's, a standby's."""

What = Literal["session", "prepared transaction", "replication slot", "standby"]


@dataclass(frozen=True, slots=True)
class Held:
    """A snapshot, or an open transaction, before which nothing can be vacuumed.

    Args:
        what: who holds it.
        name: the process id, the gid, the name of the slot or of the standby.
        transactions: how many have begun since.
        seconds: how old it is at most; None where nobody says so.
        since: when it may have begun.
        application: the session's application.
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
        """Whether it has been held for longer than so many seconds. Pure."""
        if self.seconds is None:
            return self.transactions >= UNDATED
        return self.seconds > limit and self.transactions >= HARMLESS

    @property
    def subject(self) -> str:
        """What it is called in an incident."""
        return f"{self.what} {self.name}"

    @property
    def remedy(self) -> str:
        """What ends it."""
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
    """All that hold something back, those of the oldest snapshots first; as far as the login role may see them.

    Args:
        conn: the caller's transaction, in which it acts as the login role from then on: what others' sessions do is
            shown to that one, if to anybody.
    """
    conn.execute("SET LOCAL ROLE NONE")
    with conn.cursor(row_factory=class_row(Held)) as cursor:
        return cursor.execute(_HELD).fetchall()


def old(conn: psycopg.Connection, limit: float) -> list[Held]:
    """Those that have been held for too long; empty where nobody may see them.

    Args:
        conn: in autocommit mode.
        limit: how long is too long, seconds: `Settings.held_snapshot_after`.
    """
    with conn.transaction():
        return [one for one in held(conn) if one.old(limit)]
