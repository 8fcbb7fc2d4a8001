"""Whether a database is one that refold can work on: installed, and with coordinates that mean something here."""

from __future__ import annotations

import psycopg

from refold.errors import ForeignCluster, NotInstalled
from refold.store.schema.cluster import inspect_cluster


def check(conn: psycopg.Connection) -> None:
    """Refuses a database whose schema is missing or whose coordinates mean nothing here.

    Raises:
        NotInstalled: no schema here, or an older one.
        ForeignCluster: the data came from another cluster, or speaks of transactions that this one has not had:
            a restore happened, and a cursor would skip events.
    """
    installed = conn.execute("SELECT to_regclass('refold.settings') IS NOT NULL").fetchone()
    if installed is None or not installed[0]:
        raise NotInstalled("refold is not installed in this database", remedy="Run `refold migrate` first.")
    found = inspect_cluster(conn)
    if found is None:
        raise NotInstalled("refold's settings are missing", remedy="Run `refold migrate` first.")
    why = found.why()
    if why is not None:
        raise ForeignCluster(
            why,
            remedy="`refold recover --dry-run` says what it would do about it; `refold recover` does it.",
        )
