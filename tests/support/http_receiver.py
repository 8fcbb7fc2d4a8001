"""A receiver of webhooks on this host: it records requests, and answers as a test wants, also not at all."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Self


class Request(NamedTuple):
    """A request that has arrived.

    Args:
        path: path and query.
        headers: by names in small letters.
        body: the whole body.
        connection: number of the connection, from 1.
    """

    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Ended(Exception):
    """The connection is over."""


@dataclass
class Exchange:
    """A request, and the connection on which it is answered."""

    request: Request
    socket: socket.socket
    closed: threading.Event

    def send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except OSError:
            raise Ended from None

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answers as HTTP does."""
        self.send(head(status, **{"content_length": str(len(body)), **headers}) + body)


Behaviour = Callable[[Exchange], None]


def head(status: int, **headers: str) -> bytes:
    """The first line and the headers of an answer."""
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answers(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    """Answers as HTTP does."""
    return lambda exchange: exchange.reply(status, body, **headers)


def hangs(exchange: Exchange) -> None:
    """Never answers."""
    exchange.closed.wait()
    raise Ended


def closes(exchange: Exchange) -> None:
    """Closes the connection without an answer."""
    raise Ended


def resets(exchange: Exchange) -> None:
    """Breaks the connection without an answer."""
    exchange.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise Ended


def sends(*parts: bytes) -> Behaviour:
    """Sends bytes, and closes the connection."""

    def behaviour(exchange: Exchange) -> None:
        for part in parts:
            exchange.send(part)
        raise Ended

    return behaviour


def trickles(begin: bytes, part: bytes, every_s: float) -> Behaviour:
    """Sends a few bytes now and then, for ever."""

    def behaviour(exchange: Exchange) -> None:
        exchange.send(begin)
        while not exchange.closed.wait(every_s):
            exchange.send(part)
        raise Ended

    return behaviour


def floods(begin: bytes, part: bytes) -> Behaviour:
    """Sends as fast as it can, for ever."""
    return trickles(begin, part, 0)


class Receiver:
    """Listens on 127.0.0.1. A test may change `behaviour` at any time.

    Args:
        behaviour: what becomes of each request; by default it is answered with 204.
        tls: speak TLS with this context.
        before: what becomes of each connection before its first request, instead of reading one.
    """

    def __init__(
        self,
        behaviour: Behaviour | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        before: Callable[[socket.socket, threading.Event], None] | None = None,
        address: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.behaviour = behaviour or answers(204)
        self.requests: list[Request] = []
        self.connections = 0
        self._tls = tls
        self._before = before
        self._closed = threading.Event()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server((address, port))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/hook?tenant=7"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        # close() alone does not wake accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.close_connections()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def close_connections(self) -> None:
        """Closes what is open, as a server does with idle connections."""
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def _accept(self) -> None:
        for number in itertools.count(1):
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections = number
            self._open.append(client)
            thread = threading.Thread(target=self._serve, args=(client, number), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket, number: int) -> None:
        with client, contextlib.suppress(Ended, OSError):
            if self._before is not None:
                self._before(client, self._closed)
                return
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
                self._open.append(client)
            with client:
                for request in _requests(client, number):
                    self.requests.append(request)
                    self.behaviour(Exchange(request, client, self._closed))


def _requests(client: socket.socket, number: int) -> Iterator[Request]:
    with client.makefile("rb") as file:
        while first := file.readline():
            if not first.startswith(b"POST "):
                return
            _, path, _ = first.decode().split(" ", 2)
            headers = {}
            while (line := file.readline().strip()) != b"":
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.lower()] = value.strip()
            yield Request(path, headers, file.read(int(headers["content-length"])), number)
