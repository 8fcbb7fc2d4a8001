"""All checks, most important first."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import psycopg

from refold.inspect.doctor import (
    access,
    archive,
    captures,
    erasures,
    metrics,
    notifications,
    retention,
    room,
    server,
    sessions,
    sinks,
    transactions,
)
from refold.inspect.doctor.check import Check, Probe, addressed, examine, works
from refold.postgres.standby import on_standby


def doctor(conn: psycopg.Connection, url: str, folder: Path | None) -> list[Check]:
    """Run all checks that this login and this machine can make; change nothing.

    Args:
        conn: connection of the login, in autocommit mode; refold need not be installed.
        url: URL of the same database, for the self-test's second connection.
        folder: folder of projections to compare with the deployed ones, if any.
    """
    probes = (
        Probe("schema", access.installed, installed=False),
        Probe("cluster", access.cluster),
        Probe("standby", access.replica),
        Probe("metrics", metrics.failing),
        Probe("lag", metrics.lag),
        Probe("workers", metrics.workers, primary=True),
        Probe("hot keys", metrics.hot_keys),
        Probe("projections", partial(metrics.files, folder)),
        Probe("views", partial(metrics.views, folder), primary=True),
        Probe("captures", partial(captures.captures, folder), primary=True),
        Probe("sinks", partial(sinks.sinks, folder), primary=True),
        Probe("archive", archive.archive, primary=True),
        Probe("retention", partial(retention.retention, folder), primary=True),
        Probe("erasures", erasures.erasures, primary=True),
        Probe("pgmq", sinks.queue, primary=True),
        Probe("server version", server.version, installed=False),
        Probe("settings", server.settings, installed=False),
        Probe("connections", server.connections, installed=False),
        Probe("clock", server.clock, installed=False),
        Probe("transaction ids", server.wraparound, installed=False),
        Probe("disk", room.disk, installed=False),
        Probe("roles", access.roles),
        Probe("grants", access.grants),
        Probe("sight", transactions.sight, primary=True),
        Probe("notifications", partial(notifications.listens, url), installed=False, primary=True),
        Probe("notification queue", notifications.queue, installed=False, primary=True),
        Probe("notify", notifications.switched_off, installed=False, primary=True),
        Probe("notify", notifications.held, primary=True),
        Probe("settings of logins", sessions.settings, installed=False),
        Probe("publications", sessions.publications),
        Probe("oldest transaction", transactions.oldest, installed=False),
        Probe("held snapshots", transactions.snapshots, installed=False),
        Probe("open writers", transactions.writers, primary=True),
        Probe("segments", room.segments),
        Probe("autovacuum", room.vacuum, primary=True),
    )
    checks = examine(conn, probes, installed=access.is_installed(conn))
    return addressed(checks, conn.info.user, works=works(conn), standby=on_standby(conn))
