"""A TCP proxy in front of the server, whose network can be made worse while connections run through it."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

BLOCK = 65536


@dataclass(frozen=True, slots=True)
class Weather:
    """How the network is.

    Args:
        cut_after: bytes from the client after which each connection is cut; None never.
        lose_reply: cut when the server says that a COMMIT is done: done it is, but nobody knows.
        silent: nothing passes, and nobody is told.
        delay: seconds by which every block is late.
    """

    cut_after: int | None = None
    lose_reply: bool = False
    silent: bool = False
    delay: float = 0.0


FAIR = Weather()


class Wire:
    """Listens on a port of its own on the loopback interface and passes on to a server's Unix socket.

    Args:
        socket_path: the server's; it may be away for a while, as the server may.
    """

    def __init__(self, socket_path: Path) -> None:
        self._socket_path = socket_path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.weather = FAIR
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, user: str, database: str) -> str:
        """The libpq URL of a database through this proxy."""
        port = self._listener.getsockname()[1]
        return (
            f"postgresql://{quote(user, safe='')}@127.0.0.1:{port}/{quote(database, safe='')}"
            "?sslmode=disable&gssencmode=disable"
        )

    def close(self) -> None:
        """Takes no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, selectors.DefaultSelector() as ready:
            try:
                server.connect(str(self._socket_path))
            except OSError:
                return
            ready.register(client, selectors.EVENT_READ)
            ready.register(server, selectors.EVENT_READ)
            sent = 0
            while True:
                weather = self.weather
                if weather.silent:
                    time.sleep(0.05)
                    continue
                if weather.cut_after is not None and sent >= weather.cut_after:
                    return
                for key, _ in ready.select(0.2):
                    try:
                        data = client.recv(BLOCK) if key.fileobj is client else server.recv(BLOCK)
                        if weather.delay:
                            time.sleep(weather.delay)
                        if not data:
                            return
                        if key.fileobj is client:
                            if weather.cut_after is not None:
                                data = data[: max(0, weather.cut_after - sent)]
                            sent += len(data)
                            server.sendall(data)
                        elif weather.lose_reply and b"COMMIT\0" in data:
                            return
                        else:
                            client.sendall(data)
                    except OSError:
                        return
