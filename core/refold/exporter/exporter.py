"""An exporter: one connection to the database, readings that are kept for a few seconds, and a limit to every wait."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import psycopg

from refold.errors import RefoldError
from refold.exporter.page import Page, page
from refold.exporter.readings import Exemplars, Readings, of_traces, read
from refold.postgres.connect import Role, connect
from refold.postgres.watchdog import deadline
from refold.store.schema.installed import check

KEPT_S = 5.0
"""Seconds for which readings are kept: so often the database is asked, however many scrapers there are."""
PATIENCE_S = 8.0
"""Seconds after which a scrape is answered without readings: Prometheus waits ten."""
SINGLE = 20
"""Most projections that one scrape names, and most such scrapes that are kept."""
ROLE: Role = "refold_observer"
"""What the exporter acts as: it sees counts and states, no event, no key and no text."""

log = logging.getLogger("refold.exporter")


@dataclass(frozen=True, slots=True)
class _Kept:
    at: float
    readings: Readings | None


class Exporter:
    """What the routes of one process share. Thread-safe.

    Args:
        url: libpq URL; the login must be allowed to act as refold_observer.
        exemplars: reads exemplars of histograms.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        url: str,
        *,
        exemplars: Callable[[psycopg.Connection], Exemplars] = of_traces,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._exemplars = exemplars
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[frozenset[str], _Kept] = {}
        self._running: dict[frozenset[str], Future[Readings | None]] = {}
        # One at a time uses the connection.
        self._using = threading.Lock()
        self._conn: psycopg.Connection | None = None
        self._told = False
        self._closed = False

    def scrape(self, accept: str = "", only: frozenset[str] = frozenset()) -> Page:
        """Return the page of a scrape; if the database does not answer in time, one that shows `refold_up` as 0.

        Args:
            accept: header `Accept` of the request.
            only: projections to show; empty for all.
        """
        return page(self.readings(only), accept, single=bool(only))

    def readings(self, only: frozenset[str] = frozenset()) -> Readings | None:
        """Return readings that are a few seconds old at most; None if the database does not answer in time."""
        with self._lock:
            kept = self._kept.get(only)
            if kept is not None and self._clock() - kept.at < KEPT_S:
                return kept.readings
            running = self._running.get(only)
            if running is None:
                if len(self._running) >= SINGLE:
                    return None
                running = self._running[only] = Future()
                threading.Thread(target=self._run, args=(only, running), name="refold exporter", daemon=True).start()
        try:
            return running.result(PATIENCE_S)
        except TimeoutError:
            self._tell("the database does not answer")
            return None

    @property
    def ready(self) -> bool:
        """Return whether the database answers."""
        return self.readings() is not None

    def close(self) -> None:
        """Close the connection."""
        self._closed = True
        if self._using.acquire(timeout=1):
            try:
                self._disconnect()
            finally:
                self._using.release()

    def _run(self, only: frozenset[str], future: Future[Readings | None]) -> None:
        found = None
        try:
            found = self._read(only)
        finally:
            with self._lock:
                if len(self._kept) > SINGLE:
                    self._kept = {key: one for key, one in self._kept.items() if self._clock() - one.at < KEPT_S}
                if len(self._kept) <= SINGLE:
                    self._kept[only] = _Kept(self._clock(), found)
                del self._running[only]
            future.set_result(found)

    def _read(self, only: frozenset[str]) -> Readings | None:
        with self._using:
            if self._closed:
                return None
            try:
                conn = self._connected()
                with deadline(conn, PATIENCE_S):
                    found = read(conn, only=only, exemplars=self._exemplars)
            except (psycopg.Error, RefoldError, OSError) as error:
                # What went wrong may be the connection's: the next scrape has a new one.
                self._disconnect()
                self._tell(str(error).strip())
                return None
        if self._told:
            self._told = False
            log.info("the database answers again")
        return found

    def _connected(self) -> psycopg.Connection:
        if self._conn is None or self._conn.closed:
            self._conn = connect(self._url, ROLE, autocommit=True, application_name="refold exporter")
            check(self._conn)
        return self._conn

    def _disconnect(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def _tell(self, what: str) -> None:
        """Log once that scrapes fail, and not again until one succeeds."""
        if not self._told:
            self._told = True
            log.warning("metrics cannot be read: %s", what)
