"""The duty that deletes old records: rejected input, repairs, incidents, dropped builds.

By age alone (`refold.settings`), and gently: in small portions, each a transaction that waits for nobody. What a report
counts stays counted, in `refold.forgotten`. Dead letters that wait and incidents that are open never go.
"""

from __future__ import annotations

import psycopg

from refold.postgres.rows import one_row
from refold.store.builds.compiled import Compiler

NAME = "retention"
KINDS = ("rejected", "repairs", "incidents", "letters")
"""Kinds of records that `refold.forget` deletes."""
PORTION = 1000
"""Records that one transaction checks."""
PORTIONS = 100
"""Portions of each kind in one run of the duty; the next run continues."""
BUILDS = 50
"""Builds that one transaction deletes."""


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Delete records older than `rejected_days`, `repair_days`, `incident_days` and `build_days`."""
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
