"""The snapshot in which a question about rows and events is answered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from refold.errors import BuildError
from refold.postgres.session import plan_freely
from refold.store import canaries
from refold.store.log.log_snapshot import log_snapshot

ANOTHER_VIEW = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedFunction)
"""What a query over the view of a metric raises if the view is missing, or another stands in its place."""


@contextmanager
def reading(conn: psycopg.Connection, seconds: float) -> Iterator[None]:
    """Open a read-only transaction that sees the database as of one instant, and whose statements are bounded.

    Args:
        conn: in autocommit mode.
        seconds: time limit of a statement.

    Raises:
        BuildError: a statement took longer.
    """
    try:
        with log_snapshot(conn):
            plan_freely(conn)
            canaries.off(conn)
            conn.execute("SELECT set_config('statement_timeout', %s, true)", (f"{seconds * 1000:.0f}ms",))
            yield
    except psycopg.errors.QueryCanceled as error:
        raise BuildError(
            f"the answer takes longer than {seconds:.0f} s",
            remedy="`refold reconcile NAME` compares all rows of a metric, in portions.",
        ) from error
