"""The HTTP door as operating-system processes, from the first request to the last answer.

SIGTERM drains: `/readyz` says so at once, so that a load balancer sends no more; requests are taken for a while yet;
then the listener closes, what waits is committed and answered, and the process ends. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from refold.errors import InputError, RefoldError
from refold.postgres.connect import connection
from refold.service.http.app import Door, application
from refold.service.http.problems import MEDIA_TYPE, Problem, answer
from refold.service.processes import REFUSED, supervise
from refold.store.tokens import insist_on_table
from refold.visible import log_on_stderr

log = logging.getLogger("refold.serve")

PIECE_S = 10.0
"""Seconds within which the head of a request must arrive, and the next SLOWEST * PIECE_S bytes of its body."""
SLOWEST = 1024
"""Least bytes a second of a body."""
HEAD_BYTES = 64 * 2**10
"""Most bytes of a head."""
KEEP_ALIVE_S = 75
"""Seconds for which a connection without a request stays open."""
LAST_S = 25
"""Seconds that requests have to end once the listener is closed."""
BACKLOG = 2048
"""Connections that may wait to be accepted."""


@dataclass(frozen=True, slots=True)
class Orders:
    """The configuration of the door.

    Args:
        url: libpq URL; the login must be allowed to act as refold_door and refold_producer.
        host: address to listen on.
        port: port to listen on; 0 draws a free one.
        processes: number of processes that share the port.
        drain_delay: seconds for which requests are still taken after SIGTERM.
        trust_proxy: addresses of proxies whose X-Forwarded-… headers are believed.
    """

    url: str
    host: str = "127.0.0.1"
    port: int = 8080
    processes: int = 1
    drain_delay: float = 5.0
    trust_proxy: str = ""


def run(orders: Orders) -> None:
    """Serve HTTP until a signal.

    Raises:
        DatabaseError: the schema is missing, or the login may not act as the door.
        InputError: the address cannot be listened on.
    """
    with connection(orders.url, "refold_door", autocommit=True) as conn:
        insist_on_table(conn)
    with connection(orders.url, "refold_producer", autocommit=True):
        pass
    if orders.processes == 1:
        with _listener(orders, shared=False) as listener:
            log.info("listening on http://%s:%d; Ctrl-C stops it", *listener.getsockname()[:2])
            _serve(orders, listener)
        return
    with _listener(orders, shared=True) as reserved:
        # Bound and not listening: it keeps the port, and takes no connection.
        port = reserved.getsockname()[1]
        log.info("listening on http://%s:%d with %d processes; Ctrl-C stops it", orders.host, port, orders.processes)
        supervise(
            _child, (orders, port), orders.processes, log=log, what="server", told_text="draining; no request is lost"
        )


def _listener(orders: Orders, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in orders.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((orders.host, orders.port))
    except OSError as error:
        listener.close()
        raise InputError(
            f"cannot listen on {orders.host}:{orders.port}: {error.strerror}", remedy="Choose another --host or --port."
        ) from None
    return listener


def _child(orders: Orders, port: int, parent: int) -> None:
    """Run one process of several."""
    log_on_stderr()
    log.setLevel(logging.INFO)
    # Ctrl-C goes to the whole group of processes; the parent passes on what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    own = replace(orders, port=port, processes=1)
    try:
        with _listener(own, shared=True) as listener:
            _serve(own, listener, parent=parent)
    except RefoldError as error:
        log.error("%s %s", error, error.remedy or "")
        sys.exit(REFUSED)


def _serve(orders: Orders, listener: socket.socket, *, parent: int | None = None) -> None:
    door = Door(orders.url)
    config = uvicorn.Config(
        application(door),
        http=_Protocol,
        loop="uvloop",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=bool(orders.trust_proxy),
        forwarded_allow_ips=orders.trust_proxy or None,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=LAST_S,
        backlog=BACKLOG,
    )
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    server = _Server(config, door, orders.drain_delay, parent)
    server.run([listener])
    if not server.started:
        raise RefoldError("the server could not start; see its message above")


class _Server(uvicorn.Server):
    """uvicorn's server, which drains before it closes its listener."""

    def __init__(self, config: uvicorn.Config, door: Door, drain_delay: float, parent: int | None) -> None:
        super().__init__(config)
        self._door = door
        self._drain_delay = drain_delay
        self._parent = parent

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGINT and self._parent is not None:
            return
        if self._door.draining:
            if self._parent is None:
                self.force_exit = self.should_exit = True
            return
        self._door.draining = True
        if self._parent is None:
            log.info("draining; no request is lost (signal again to stop immediately)")
        self._loop.call_soon_threadsafe(self._loop.call_later, self._drain_delay, self._close)

    def _close(self) -> None:
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    async def on_tick(self, counter: int) -> bool:
        if self._parent is not None and os.getppid() != self._parent:
            # The parent was killed.
            return True
        return await super().on_tick(counter)


class _Protocol(HttpToolsProtocol):
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
            body = bytes(answer(Problem(408, f"the body arrives at less than {SLOWEST} bytes a second")).body)
            self.transport.write(
                b"HTTP/1.1 408 Request Timeout\r\ncontent-type: %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
                % (MEDIA_TYPE.encode(), len(body), body)
            )
        self.transport.close()
