"""The duty that moves the ids of purged events to the cold ledger, in bounded steps."""

from __future__ import annotations

import time

import psycopg

from refold.store.builds.compiled import Compiler
from refold.store.log.cold_ledger import chill_step

NAME = "cold ledger"
SECONDS = 5.0
"""Seconds after which no further step is begun."""


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Move ids until none is left, or the time is over; the next run goes on."""
    until = time.monotonic() + SECONDS
    while chill_step(conn) is not None and time.monotonic() < until:
        pass
