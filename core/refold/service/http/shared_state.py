"""What all doors share, in memory: valid tokens, and what holds producers back.

It is read every two seconds, so that a revocation holds within five.
"""

from __future__ import annotations

import logging
import threading
import time

import psycopg

from refold.errors import RefoldError
from refold.model.token import digest, is_token
from refold.postgres.connect import connect
from refold.store.pressure import Pressure, pressure
from refold.store.tokens import Token, digests, used

log = logging.getLogger("refold.serve")

READ_S = 2.0
"""Seconds between two reads of the table."""
KEPT_S = 600.0
"""Seconds for which tokens are known while the database is away."""


class SharedState:
    """A thread that keeps valid tokens and the pressure in memory.

    Args:
        url: libpq URL; the login must be allowed to act as refold_door.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._conn: psycopg.Connection | None = None
        self._valid: dict[bytes, Token] = {}
        # A hash for every request costs more than a look; what is here is as old as the last read.
        self._by_text: dict[str, Token] = {}
        self._pressure = Pressure()
        self._read_at = float("-inf")
        self._used: set[int] = set()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="refold shared state", daemon=True)

    def open(self) -> None:
        """Read the tokens once, and go on reading them.

        Raises:
            RefoldError: the login may not act as the door, or refold is not installed.
            psycopg.Error: the database cannot be reached.
        """
        self._read()
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._closed.set()
        self._thread.join(5)

    @property
    def known(self) -> bool:
        """Return whether what is known is recent enough to go by it."""
        return time.monotonic() - self._read_at < KEPT_S

    @property
    def fresh(self) -> bool:
        """Return whether the database was reached a moment ago."""
        return time.monotonic() - self._read_at < 3 * READ_S

    @property
    def pressure(self) -> Pressure:
        """Return what holds producers back; levels stay as they were while workers or the database are away."""
        return self._pressure

    def find(self, text: str) -> Token | None:
        """Return the valid token of this text."""
        token = self._by_text.get(text)
        if token is None and is_token(text):
            token = self._valid.get(digest(text))
            if token is not None:
                self._by_text[text] = token
        if token is not None:
            self._used.add(token.token_id)
        return token

    def allows_origin(self, origin: str) -> bool:
        """Return whether any token may be used from a web origin."""
        return any(origin in token.origins for token in self._valid.values())

    def _run(self) -> None:
        told = False
        while not self._closed.wait(READ_S):
            try:
                self._read()
                told = False
            except (psycopg.Error, RefoldError) as error:
                if not told:
                    log.warning("tokens and pressure cannot be read: %s", str(error).strip())
                told = True
                if self._conn is not None:
                    self._conn.close()
        if self._conn is not None:
            self._conn.close()

    def _read(self) -> None:
        if self._conn is None or self._conn.closed:
            self._conn = connect(self._url, "refold_door", autocommit=True, application_name="refold serve")
        self._valid = digests(self._conn)
        self._by_text = {}
        self._pressure = pressure(self._conn)
        self._read_at = time.monotonic()
        if self._used:
            ids, self._used = list(self._used), set()
            used(self._conn, ids)
