"""The duty that scrubs the log: the newest slices every minute, the whole log once in `scrub_days`."""

from __future__ import annotations

import psycopg

from refold.engine.scrub import rolling
from refold.store.builds.compiled import Compiler

NAME = rolling.NAME


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Open and resolve the incidents `log_damage`."""
    rolling.step(conn)
