"""uvicorn's protocol for HTTP, with bounds on slow and long requests."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

PIECE_S = 10.0
"""Seconds within which the head of a request must arrive, and the next SLOWEST * PIECE_S bytes of its body."""
SLOWEST = 1024
"""Least bytes a second of a body."""
HEAD_BYTES = 64 * 2**10
"""Most bytes of a head."""
TOO_SLOW = (
    b'{"title":"Request Timeout","status":408,"detail":"the body arrives at less than %d bytes a second"}' % SLOWEST
)
"""The answer to a body that hardly arrives, as problem+json of RFC 9457."""


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, which does not wait for ever for a request: one timer for its head and its body."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._timer: asyncio.TimerHandle | None = None
        self._in_body = False
        self._head_bytes = 0
        self._arrived = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        self._arrived += len(data)
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_body = False
        self._head_bytes = 0
        self._wait()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > HEAD_BYTES:
            self.transport.abort()
            return
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._forget()
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._forget()
        self._arrived = 0
        self._timer = self.loop.call_later(PIECE_S, self._check)

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        """End a request that keeps its connection busy and sends next to nothing; one that we do not read is fine."""
        if self.transport.is_closing():
            return
        if self._in_body and (self.flow.read_paused or self._arrived >= SLOWEST * PIECE_S):
            self._wait()
            return
        if self._in_body and not self.cycle.response_started:
            self.transport.write(
                b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/problem+json\r\n"
                b"content-length: %d\r\nconnection: close\r\n\r\n%s" % (len(TOO_SLOW), TOO_SLOW)
            )
        self.transport.close()
