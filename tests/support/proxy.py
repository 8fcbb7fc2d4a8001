"""A proxy in front of the server that breaks a connection at a chosen point, as networks do."""

from __future__ import annotations

import contextlib
import select
import selectors
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tests.conftest import ServerUnderTest

Direction = Literal["to server", "to client"]
Rule = Callable[[Direction, bytes], tuple[bytes | None, bool]]
"""What becomes of some bytes: what to pass on, and whether to cut the connection then, both ways. None: nothing is read
or passed on any more, and the connection stays open."""


def reply_lost(to: str, time: int = 1) -> Rule:
    """Cuts when the server says, for the first or a later time, that a command is done (its tag, such as COMMIT):
    done it is, but nobody knows."""
    tag = to.encode() + b"\0"
    left = time

    def rule(direction: Direction, data: bytes) -> tuple[bytes, bool]:
        nonlocal left
        if direction == "to client" and tag in data:
            left -= 1
            if left == 0:
                return b"", True
        return data, False

    return rule


def cut_after(count: int, of: Direction = "to server") -> Rule:
    """Cuts when the client has sent (or received) so many bytes."""
    left = count

    def rule(direction: Direction, data: bytes) -> tuple[bytes, bool]:
        nonlocal left
        if direction != of:
            return data, False
        passed = data[:left]
        left -= len(passed)
        return passed, left == 0

    return rule


def silent_after(count: int, of: Direction = "to server") -> Rule:
    """Goes silent when the client has sent (or received) so many bytes."""
    left = count

    def rule(direction: Direction, data: bytes) -> tuple[bytes | None, bool]:
        nonlocal left
        if direction == of:
            left -= len(data)
        return (None if left <= 0 else data), False

    return rule


def untouched(direction: Direction, data: bytes) -> tuple[bytes, bool]:
    """Cuts nothing."""
    return data, False


class Proxy:
    """Listens on a unix socket, and cuts or silences one connection by its rule; those after it are left alone.

    Args:
        server: what is behind it.
        rule: decides when to cut.
    """

    def __init__(self, server: ServerUnderTest, rule: Rule = untouched) -> None:
        self._server = server
        self._rule = rule
        self._directory = Path(tempfile.mkdtemp(prefix="refold-proxy-"))
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._directory / ".s.PGSQL.5432"))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self.cuts = 0
        self.silences = 0
        self.accepted = 0
        """Connections of clients."""
        self._closed = threading.Event()
        self.sent = 0
        """Bytes from clients to the server."""
        self.received = 0
        """Bytes from the server to clients."""

    def url_of(self, database: str) -> str:
        """The libpq URL of a database, through this proxy."""
        return replace(self._server, host=str(self._directory), port=5432).url_of(database)

    def lead_to(self, server: ServerUnderTest) -> None:
        """Has another server behind it from now on, as after a failover; connections that are open stay."""
        self._server = server

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        # close() alone does not wake accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)
        shutil.rmtree(self._directory)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            thread = threading.Thread(target=self._serve, args=(client, self._behind()), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _behind(self) -> socket.socket:
        if not self._server.host.startswith("/"):
            return socket.create_connection((self._server.host, self._server.port))
        behind = socket.socket(socket.AF_UNIX)
        behind.connect(f"{self._server.host}/.s.PGSQL.{self._server.port}")
        return behind

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        with client, server, selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ, (server, "to server"))
            ready.register(server, selectors.EVENT_READ, (client, "to client"))
            while True:
                for key, _ in ready.select():
                    assert isinstance(key.fileobj, socket.socket)
                    other, direction = key.data
                    try:
                        data = key.fileobj.recv(65536)
                        if direction == "to server":
                            self.sent += len(data)
                        else:
                            self.received += len(data)
                        broken = self.cuts or self.silences
                        passed, cut = (data, False) if broken else self._rule(direction, data)
                        if passed is None:
                            self.silences += 1
                            self._hang(client)
                            return
                        other.sendall(passed)
                        self.cuts += cut
                        if cut or not data:
                            return
                    except OSError:
                        return

    def _hang(self, client: socket.socket) -> None:
        """Does nothing until the client goes."""
        gone = select.poll()
        gone.register(client, 0)
        while not self._closed.is_set() and not gone.poll(50):
            pass
