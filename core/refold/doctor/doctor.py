"""All checks, in the order in which one wants to read them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import psycopg

from refold.doctor import access, metrics, notifications, room, server, sessions, transactions
from refold.doctor.check import Check, Probe, examine


def doctor(conn: psycopg.Connection, url: str, folder: Path | None) -> list[Check]:
    """Looks at everything that this login and this machine can see; changes nothing.

    Args:
        conn: the login's own, in autocommit mode; refold need not be installed.
        url: the same database, for the self-test's second connection.
        folder: projections to compare with what is deployed, if there are any here.
    """
    probes = (
        Probe("server version", server.version, installed=False),
        Probe("settings", server.settings, installed=False),
        Probe("connections", server.connections, installed=False),
        Probe("clock", server.clock, installed=False),
        Probe("transaction ids", server.wraparound, installed=False),
        Probe("disk", room.disk, installed=False),
        Probe("schema", access.installed, installed=False),
        Probe("cluster", access.cluster),
        Probe("roles", access.roles),
        Probe("grants", access.grants),
        Probe("wake-ups", partial(notifications.listens, url), installed=False),
        Probe("notification queue", notifications.queue, installed=False),
        Probe("doorbell", notifications.silent, installed=False),
        Probe("doorbell", notifications.held),
        Probe("settings of logins", sessions.settings, installed=False),
        Probe("publications", sessions.publications),
        Probe("oldest transaction", transactions.oldest, installed=False),
        Probe("held snapshots", transactions.snapshots, installed=False),
        Probe("open writers", transactions.writers),
        Probe("segments", room.segments),
        Probe("autovacuum", room.vacuum),
        Probe("projections", partial(metrics.files, folder)),
        Probe("views", partial(metrics.views, folder)),
        Probe("workers", metrics.workers),
        Probe("metrics", metrics.failing),
        Probe("hot keys", metrics.hot_keys),
    )
    return examine(conn, probes, installed=access.is_installed(conn))
