"""Checks of notifications: delivery, the queue, and roles with notifications switched off."""

from __future__ import annotations

import psycopg

from refold.inspect.doctor.check import Check, graded
from refold.postgres.connect import connect
from refold.postgres.rows import one_row
from refold.service.worker.listener import Listener, holders

QUEUE = 0.1, 0.5
"""Fill level of the cluster's queue; from 0.5 on producers do not notify, so that their commits cannot fail."""


def listens(url: str, conn: psycopg.Connection) -> list[Check]:
    """Check that notifications arrive, with the self-test that workers run at their start.

    Args:
        url: URL for a second connection.
        conn: connection that listens.
    """
    with connect(url, autocommit=True, application_name="refold self-test") as other:
        works = Listener(conn).self_test(other)
    conn.execute("UNLISTEN *")
    row = conn.execute("SELECT pg_backend_pid()").fetchone()
    # A proxy gives its clients keys of its own.
    proxied = row != (conn.info.backend_pid,)
    return [listening(works, proxied)]


def listening(works: bool, proxied: bool) -> Check:
    """Return the verdict on the self-test. Pure."""
    if works:
        return Check("notifications", "ok", "NOTIFY arrives here" + (", through a proxy" if proxied else ""))
    return Check(
        "notifications",
        "warn",
        "NOTIFY does not arrive here" + (": a proxy pools transactions" if proxied else ""),
        "Workers poll every second (`--poll`). Give them a direct connection, or a pool in session mode.",
    )


def queue(conn: psycopg.Connection) -> list[Check]:
    """Check the fill level of the notification queue; any stuck listener of the cluster fills it."""
    row = one_row(conn, "SELECT pg_notification_queue_usage()")
    verdict = graded(row[0], *QUEUE)
    remedy = "" if verdict == "ok" else "End the session that has listened longest inside a transaction."
    return [Check("notification queue", verdict, f"{row[0]:.0%} full", remedy)]


def switched_off(conn: psycopg.Connection) -> list[Check]:
    """Check which roles have notifications off, and whether two-phase commit requires that."""
    rows = conn.execute(
        """
        SELECT coalesce(r.rolname::text, 'everybody')
        FROM pg_db_role_setting AS s
        LEFT JOIN pg_roles AS r ON r.oid = s.setrole
        LEFT JOIN pg_database AS d ON d.oid = s.setdatabase
        WHERE 'refold.notify=off' = ANY (s.setconfig) AND (s.setdatabase = 0 OR d.datname = current_database())
        ORDER BY 1
        """
    ).fetchall()
    two_phase = conn.execute("SHOW max_prepared_transactions").fetchone() != ("0",)
    return [quiet([name for (name,) in rows], two_phase)]


def held(conn: psycopg.Connection) -> list[Check]:
    """Check that only workers hold the lock that marks sleeping workers; any login that may connect can take it."""
    return strangers(holders(conn))


def strangers(found: list[tuple[int, str, str, bool]]) -> list[Check]:
    """Return the verdict on holders of the lock: pid, user, application, whether exclusively. Pure."""
    return [
        Check(
            "notify",
            "warn",
            f"pid {pid} ({user}, {name}) holds the listener lock: "
            + ("workers get no notifications and poll" if alone else "each append notifies, even if no worker sleeps"),
            f"SELECT pg_terminate_backend({pid});",
        )
        for pid, user, name, alone in found
        # For a moment producers try it.
        if name != "refold worker" and (not alone or user != "?")
    ]


def quiet(roles: list[str], two_phase: bool) -> Check:
    """Return the verdict on roles that do not notify. Pure."""
    if roles:
        return Check("notify", "ok", f"off for {', '.join(roles)}: their events wait for the next poll")
    if two_phase:
        return Check(
            "notify",
            "ok",
            "on for all; but PREPARE TRANSACTION fails for a producer while a worker sleeps",
            "For a producer with two-phase commit: ALTER ROLE … SET refold.notify = off.",
        )
    return Check("notify", "ok", "on for all")
