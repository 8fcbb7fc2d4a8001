"""The duty that lets rows go that a metric keeps no longer (`refold retain`): another day each day, in portions.

It also goes on where a command was killed, and lets rows of a build go that has loaded since.
"""

from __future__ import annotations

import logging

import psycopg

from refold.engine.retain.let_go import let_go
from refold.errors import BuildError
from refold.prose import counted
from refold.store import retentions
from refold.store.builds.compiled import Compiler

log = logging.getLogger("refold.retain")

NAME = "retain"
SECONDS = 20.0
"""Seconds after which no other portion of a metric is begun; the next run continues."""


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Let go what is older than the metrics keep it."""
    for wanted in retentions.every(conn):
        try:
            gone = let_go(conn, compiler, wanted, seconds=SECONDS)
        except BuildError as error:
            log.warning("rows of %s stay: %s", wanted.projection, error)
            continue
        if gone:
            log.info("let %s of %s go", counted(gone, "row"), wanted.projection)
