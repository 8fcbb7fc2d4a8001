"""The thread of a worker that delivers sinks, as `refold deliver` does; it begins when there is a sink."""

from __future__ import annotations

import threading
from pathlib import Path

import psycopg

from refold.sinks.run import Delivery

END_S = 20.0
"""Seconds to wait for deliveries that are under way; their lease is over by itself."""


class DeliveryThread:
    """Delivers sinks beside a worker's pages, over connections of its own.

    Args:
        url: libpq URL; the login must be allowed to act as refold_worker.
        projections: folder of Python transforms, if any.
    """

    def __init__(self, url: str, projections: Path | None) -> None:
        self._told = threading.Event()
        self._delivery = Delivery(url, projections, stopped=self._told.is_set)
        self._thread: threading.Thread | None = None

    def look(self, conn: psycopg.Connection) -> None:
        """Begin if there is a sink and the thread does not run."""
        if self._thread is None or not self._thread.is_alive():
            if not conn.execute("SELECT FROM refold.sinks LIMIT 1").rowcount:
                return
            # A daemon: a receiver that hangs must not keep the process.
            self._thread = threading.Thread(target=self._delivery.run, name="refold sinks", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Stop, and wait for what is under way."""
        self._told.set()
        if self._thread is not None:
            self._thread.join(END_S)
