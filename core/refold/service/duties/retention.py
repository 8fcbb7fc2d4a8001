"""Records that nobody needs any more: set-aside input, repairs, incidents, builds that were dropped.

By age alone (`refold.settings`), and gently: in small portions, each a transaction that waits for nobody. What a report
counts stays counted, in `refold.forgotten`. Dead letters that wait and incidents that are open never go.
"""

from __future__ import annotations

import psycopg

from refold.postgres.rows import one_row
from refold.store.builds.compiled import Compiler

NAME = "retention"
KINDS = ("rejected", "repairs", "incidents", "letters")
"""What `refold.forget` knows."""
PORTION = 1000
"""Records that are looked at in a transaction."""
PORTIONS = 100
"""Of each kind, every time that the duty runs; the rest is left for the next."""
BUILDS = 50
"""Builds that are removed in a transaction."""


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Removes what is older than `rejected_days`, `repair_days`, `incident_days` and `build_days`."""
    for kind in KINDS:
        after: int | None = 0
        for _ in range(PORTIONS):
            after = _portion(conn, "SELECT refold.forget(%s, %s, %s)", kind, after, PORTION)
            if after is None:
                break
    for _ in range(PORTIONS):
        if not _portion(conn, "SELECT refold.forget_builds(%s)", BUILDS):
            break


def _portion(conn: psycopg.Connection, call: str, *parameters: object) -> int | None:
    try:
        with conn.transaction():
            conn.execute("SET LOCAL lock_timeout = '200ms'")
            row = one_row(conn, call.encode(), parameters)
    except psycopg.errors.LockNotAvailable:
        # Somebody works on these: they are not in a hurry.
        return None
    return None if row[0] is None else int(row[0])
