"""The watchdog: detects answers that never arrive over a connection that does not break.

A proxy that hangs acknowledges what it gets and passes nothing on, so TCP's own time-outs see nothing wrong. A long
statement looks the same from here; so a second connection asks the server what became of the first. Only where it has
nothing to do for us any more, or cannot be reached, the connection is ended, and the usual retry begins.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import psycopg
from psycopg.pq import TransactionStatus

SILENT_AFTER_S = 60.0
"""Seconds without an answer after which the watchdog asks the server."""
ASK_S = 10
"""Time limit for that question, seconds."""
LOOK_S = 1.0
"""Seconds between two checks of the connection."""

# A session that has finished our command some time ago, or waits for us to go on: what it said, or what we said,
# is lost. One that has just done so is only quick.
_WORKS = """
SELECT (state = 'active' AND wait_event_type IS DISTINCT FROM 'Client')
       -- On either side of now: a clock that was ahead would vouch for it until it is caught up with.
       OR abs(extract(epoch FROM clock_timestamp() - state_change)) < %s
FROM pg_stat_activity WHERE pid = %s
"""


class Watchdog:
    """A thread that watches a connection; also a context manager.

    Args:
        conn: connection to watch. The watchdog never uses it, and only reads its state.
        url: URL of the same server.
    """

    def __init__(self, conn: psycopg.Connection, url: str) -> None:
        self._conn = conn
        self._url = url
        self._pid = conn.info.backend_pid
        self._socket = _socket_of(conn)
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="refold watchdog", daemon=True).start()

    def close(self) -> None:
        """End the watchdog, and leave the connection open."""
        self._ended.set()

    def abort(self) -> None:
        """Shut the connection down, so that a pending call on it raises an error."""
        _end(self._socket)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        with self._socket:
            asked = time.monotonic()
            while not self._ended.wait(min(LOOK_S, SILENT_AFTER_S / 4)) and not self._conn.closed:
                if self._conn.info.transaction_status is not TransactionStatus.ACTIVE:
                    asked = time.monotonic()
                elif time.monotonic() - asked > SILENT_AFTER_S:
                    if not self._works():
                        _end(self._socket)
                        return
                    asked = time.monotonic()

    def _works(self) -> bool:
        """Return whether the server can be reached and still runs our statement."""
        try:
            with (
                psycopg.connect(
                    self._url, autocommit=True, connect_timeout=ASK_S, application_name="refold watchdog"
                ) as other,
                deadline(other, ASK_S),
            ):
                if other.execute("SELECT pg_backend_pid()").fetchone() != (other.info.backend_pid,):
                    # A pooling proxy: nobody knows which session has our statement.
                    return True
                row = other.execute(_WORKS, (SILENT_AFTER_S / 2, self._pid)).fetchone()
        except psycopg.errors.QueryCanceled:
            # Somebody bounds the login's statements. It can be reached, and more was not to be learnt.
            return True
        except psycopg.Error:
            return False
        return row is not None and row[0] is not False


@contextmanager
def deadline(conn: psycopg.Connection, seconds: float) -> Iterator[None]:
    """Shut a connection down if the statements inside take longer than `seconds`."""
    own = _socket_of(conn)
    late = threading.Timer(seconds, _end, [own])
    late.start()
    try:
        yield
    finally:
        late.cancel()
        late.join()
        own.close()


def _socket_of(conn: psycopg.Connection) -> socket.socket:
    # A descriptor of its own: that of the connection may be closed, and be another file's, at any time.
    return socket.socket(fileno=os.dup(conn.fileno()))


def _end(connection: socket.socket) -> None:
    """Shut the socket down, so that a pending read returns."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        # It has ended already.
        return
