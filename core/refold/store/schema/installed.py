"""The checks that refold is installed, in this version, and that the cursors belong to this cluster."""

from __future__ import annotations

import psycopg

from refold.errors import ForeignCluster, NotInstalled
from refold.store.schema.cluster import inspect_cluster


def check(conn: psycopg.Connection) -> None:
    """Raise an error if the schema is missing, or if the cursors do not belong to this cluster.

    Raises:
        NotInstalled: the schema is missing, or older than this program.
        ForeignCluster: the data was restored from another cluster, or names transactions that this one has not had.
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
            remedy="`refold recover --dry-run` prints a plan; `refold recover` runs it.",
        )


def insist_on(conn: psycopg.Connection, table: str) -> None:
    """Raise an error if the schema is of a version without a table.

    Raises:
        NotInstalled: it is.
    """
    if conn.execute("SELECT to_regclass(%s)", (table,)).fetchone() == (None,):
        raise NotInstalled("the schema is older than this version of refold", remedy="Run `refold migrate`.")
