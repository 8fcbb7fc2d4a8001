"""Standbys: servers that repeat what a primary writes. Everything can be read there, and nothing written."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

from refold.errors import OnStandby

READING = "status, incidents, report, doctor, query, url, explain, rejected, deadletters list, deadletters show"
"""Commands that work on one."""


@dataclass(frozen=True, slots=True)
class Standby:
    """How a standby stands.

    Args:
        connected: whether it receives from its primary at this moment.
        seconds: how far it may be behind, seconds; 0 where it has repeated all that it got, and is connected.
    """

    connected: bool
    seconds: float


def on_standby(conn: psycopg.Connection) -> bool:
    """Whether the server is a standby; without asking it, for it has said so."""
    return conn.info.parameter_status("in_hot_standby") == "on"


def refuse(conn: psycopg.Connection) -> None:
    """Refuses a standby.

    Raises:
        OnStandby: it is one.
    """
    if on_standby(conn):
        raise refusal()


def refusal() -> OnStandby:
    """What somebody is told who would write on a standby."""
    return OnStandby(
        "this server is a standby: it repeats what its primary writes, and nothing can be written here",
        remedy="Give the primary in --database-url (or REFOLD_DATABASE_URL); where the URL names several hosts, "
        f"with target_session_attrs=read-write. These commands work here: {READING}.",
    )


def standby(conn: psycopg.Connection) -> Standby | None:
    """How far a standby is; None on a primary.

    Args:
        conn: acts as a role that may use refold's schema.
    """
    with conn.cursor(row_factory=class_row(Standby)) as cursor:
        return cursor.execute(
            """
            SELECT EXISTS (SELECT FROM pg_stat_wal_receiver AS r WHERE r.pid IS NOT NULL) AS connected,
                   coalesce(extract(epoch FROM clock_timestamp() - refold.replayed_at()), 0)::float8 AS seconds
            WHERE pg_is_in_recovery()
            """
        ).fetchone()
