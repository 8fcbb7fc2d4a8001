"""The delivery of all sinks of a database: each that has something to deliver gets turns, on one of a few threads."""

from __future__ import annotations

import logging
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psycopg

from refold.errors import OnStandby
from refold.model.sink_queue import CHANNEL
from refold.postgres.connect import connect
from refold.postgres.proxy import proxied
from refold.postgres.session import PAGES
from refold.postgres.watchdog import Watchdog
from refold.sinks.deliver import Deliverer
from refold.store import sinks
from refold.store.builds.compiled import Compiler
from refold.store.schema.installed import check
from refold.store.sinks import Sink

log = logging.getLogger("refold.sinks")

SETTINGS = {**PAGES, "idle_in_transaction_session_timeout": "60s"}
"""A deliverer that is frozen in a transaction must not keep the others from the sink, or a metric from its switch."""
NAME = "refold sinks"
"""Application name of its sessions."""
THREADS = 4
"""Sinks that a process delivers at a time: a receiver that hangs delays no other, up to three of them."""
POLL = 1.0
"""Seconds between two looks while no notification arrives."""
TICK = 0.25
"""Seconds between two checks for a stop."""
END_S = 15.0
"""Seconds to wait for deliveries that are under way when the process stops."""
IDLE_S = 60.0
"""Seconds without a turn after which a sink's connections are closed."""
PAUSE = 0.05, 5.0
"""Longest pause before the first retry, and before any retry, after an error of this database, seconds."""


class Delivery:
    """Delivers the sinks of a database until it is told to stop.

    Args:
        url: libpq URL; the login must be allowed to act as refold_worker.
        projections: folder of Python transforms, if any.
        only: names of the sinks to deliver; none means all.
        poll: seconds between two looks while no notification arrives.
        stopped: returns whether to stop.
    """

    def __init__(
        self,
        url: str,
        projections: Path | None,
        *,
        only: Sequence[str] = (),
        poll: float = POLL,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._url = url
        self._projections = projections
        self._only = frozenset(only)
        self._poll = poll
        self._stopped = stopped
        self._me = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._lanes: dict[int, _Lane] = {}
        self._pause = PAUSE[0]
        self._said: str | None = None

    def run(self, *, drain: bool = False) -> None:
        """Deliver until stopped; with `drain`, until nothing is due.

        Errors of this database are retried without limit, over new connections.
        """
        try:
            while not self._stopped():
                try:
                    self._look(drain=drain)
                    if drain:
                        return
                except (psycopg.Error, OnStandby) as error:
                    self._report(error)
        finally:
            until = time.monotonic() + END_S
            for lane in self._lanes.values():
                lane.join(max(0.0, until - time.monotonic()))
                lane.end()

    def _look(self, *, drain: bool) -> None:
        with (
            connect(self._url, "refold_worker", autocommit=True, application_name=NAME, settings=SETTINGS) as conn,
            Watchdog(conn, self._url),
        ):
            check(conn)
            if not proxied(conn):
                conn.execute(f"LISTEN {CHANNEL}".encode())
            looker = Deliverer(conn, Compiler(self._projections), self._me)
            while not self._stopped():
                started = time.monotonic()
                busy = self._begin(conn, looker)
                self._pause, self._said = PAUSE[0], None
                if drain and not busy:
                    return
                # A lane that has ended its turns may have left something.
                wait = 0.02 if busy else self._poll
                while not self._stopped() and (left := started + wait - time.monotonic()) > 0:
                    if any(True for _ in conn.notifies(timeout=min(left, TICK), stop_after=1)):
                        break
            check(conn)

    def _begin(self, conn: psycopg.Connection, looker: Deliverer) -> bool:
        """Give a turn to each sink that has something to deliver; return whether any has."""
        known = {sink.sink_id: sink for sink in sinks.every(conn) if not self._only or sink.name in self._only}
        (now,) = conn.execute("SELECT clock_timestamp()").fetchone() or (None,)
        busy = False
        free = THREADS - sum(lane.busy for lane in self._lanes.values())
        for sink_id, state in sinks.states(conn).items():
            sink = known.get(sink_id)
            if sink is None:
                continue
            lane = self._lanes.get(sink_id)
            if lane is not None and lane.busy:
                busy = True
                continue
            if looker.due(sink, state, now):
                busy = True
                if free > 0:
                    free -= 1
                    if lane is None:
                        lane = self._lanes[sink_id] = _Lane(self._url, self._projections, self._me, self._stopped)
                    lane.begin(sink)
            elif lane is not None and lane.idle():
                lane.end()
                del self._lanes[sink_id]
        return busy

    def _report(self, error: psycopg.Error | OnStandby) -> None:
        said = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        if said != self._said:
            self._said = said
            log.warning("deliveries: retrying after %s", said)
        time.sleep(random.uniform(0, self._pause))
        self._pause = min(self._pause * 2, PAUSE[1])


class _Lane:
    """The turns of one sink: a connection of its own, and the receiver, which stay open while there is work."""

    def __init__(self, url: str, projections: Path | None, me: str, stopped: Callable[[], bool]) -> None:
        self._url = url
        self._projections = projections
        self._me = me
        self._stopped = stopped
        self._conn: psycopg.Connection | None = None
        self._watchdog: Watchdog | None = None
        self._deliverer: Deliverer | None = None
        self._worked = time.monotonic()
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Return whether it takes turns."""
        return self._thread is not None and self._thread.is_alive()

    def begin(self, sink: Sink) -> None:
        """Take turns, in a thread, while there is something to deliver."""
        # A daemon: a receiver that hangs must not keep a process that was told to stop.
        self._thread = threading.Thread(target=self._work, args=(sink,), name=f"{NAME}: {sink.name}", daemon=True)
        self._thread.start()

    def join(self, seconds: float) -> None:
        """Wait for its turns to end."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _work(self, sink: Sink) -> None:
        try:
            if self._conn is None or self._conn.closed or self._deliverer is None:
                self._conn = connect(
                    self._url,
                    "refold_worker",
                    autocommit=True,
                    application_name=f"{NAME}: {sink.name}",
                    settings=SETTINGS,
                )
                self._watchdog = Watchdog(self._conn, self._url)
                self._deliverer = Deliverer(self._conn, Compiler(self._projections), self._me)
            while not self._stopped() and self._deliverer.turn(sink):
                pass
        except Exception as error:
            # Whatever it is, the next look begins anew; the lease protects what is under way.
            log.warning("%s: %s: %s", sink.name, type(error).__name__, str(error).partition("\n")[0])
            self._drop()
            time.sleep(random.uniform(0, 1))
        finally:
            self._worked = time.monotonic()

    def idle(self) -> bool:
        """Return whether it had no turn for a while."""
        return time.monotonic() - self._worked > IDLE_S

    def end(self) -> None:
        """Give the lease back, and close the connections; not while it takes turns: then the lease ends by itself."""
        if self.busy:
            return
        if self._deliverer is not None:
            with suppress(Exception):
                self._deliverer.release()
        self._drop()

    def _drop(self) -> None:
        if self._deliverer is not None:
            self._deliverer.close()
        if self._watchdog is not None:
            self._watchdog.close()
        if self._conn is not None:
            with suppress(Exception):
                self._conn.close()
        self._conn = self._watchdog = self._deliverer = None
