"""The duty that keeps the running totals, which monitoring reads."""

from __future__ import annotations

import psycopg

from refold.store import totals
from refold.store.builds.compiled import Compiler

NAME = "totals"


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Count the events, records and archived segments that have come since the last run."""
    totals.count_events(conn)
    totals.count_records(conn)
    totals.count_archive(conn)
