"""Standbys: read-only servers that replay the changes of a primary."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

from refold.errors import OnStandby

READING = (
    "status, incidents, report, doctor, query, url, explain, rejected, deadletters list, deadletters show, "
    "captures list"
)
"""Commands that work on a standby."""


@dataclass(frozen=True, slots=True)
class Standby:
    """The state of a standby.

    Args:
        connected: whether it is connected to its primary.
        seconds: longest possible delay behind the primary, seconds; 0 if it is connected and has replayed all.
    """

    connected: bool
    seconds: float


def on_standby(conn: psycopg.Connection) -> bool:
    """Return whether the server is a standby, from the connection's parameters, without a query."""
    return conn.info.parameter_status("in_hot_standby") == "on"


def refuse(conn: psycopg.Connection) -> None:
    """Raise an error if the server is a standby.

    Raises:
        OnStandby: the server is a standby.
    """
    if on_standby(conn):
        raise refusal()


def refusal() -> OnStandby:
    """Return the error for a write on a standby."""
    return OnStandby(
        "this server is a standby, which is read-only",
        remedy="Name the primary in --database-url (or REFOLD_DATABASE_URL). If the URL names several hosts, add "
        f"target_session_attrs=read-write. These commands work on a standby: {READING}.",
    )


def standby(conn: psycopg.Connection) -> Standby | None:
    """Return the state of a standby; None on a primary.

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
