"""How long the server itself worked on the statements of a connection."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg
from psycopg.errors import Diagnostic

from benchmarks.rounds import seconds
from refold.postgres.connect import connect
from refold.postgres.session import PAGES

_DURATION = re.compile(r"duration: ([0-9.]+) ms")


@dataclass(slots=True)
class ServerTime:
    """Adds up what auto_explain reports of every statement: the execution of the cached plan, in ms."""

    milliseconds: float = 0.0
    calls: list[tuple[float, float]] = field(default_factory=list)

    def note(self, message: Diagnostic) -> None:
        """Takes a message of the server."""
        found = _DURATION.match(message.message_primary or "")
        if found:
            self.milliseconds += float(found[1])

    def measure(self, act: Callable[[int], object], at: int = 0) -> None:
        """Runs something, and keeps (ms on the server, ms for the client)."""
        self.milliseconds = 0.0
        client = seconds(act, at) * 1000
        self.calls.append((self.milliseconds, client))


def timed_worker(url: str) -> tuple[psycopg.Connection, ServerTime]:
    """A connection as workers have it, which also tells how long the server took; needs a superuser."""
    time = ServerTime()
    conn = connect(url, autocommit=True, settings=PAGES)
    conn.execute("LOAD 'auto_explain'")
    conn.execute("SET auto_explain.log_min_duration = 0")
    conn.execute("SET client_min_messages = log")
    conn.execute("SET ROLE refold_worker")
    conn.add_notice_handler(time.note)
    return conn, time
