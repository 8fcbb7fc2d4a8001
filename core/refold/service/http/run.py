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
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import FrameType

import uvicorn

from refold import tracing
from refold.errors import RefoldError
from refold.postgres.connect import connection
from refold.service.http.app import Door, application
from refold.service.processes import REFUSED, Job, supervise
from refold.store.tokens import insist_on_table
from refold.visible import log_on_stderr
from refold.web.listener import listening, origin
from refold.web.server import Server, settings

log = logging.getLogger("refold.serve")

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
        with listening(orders.host, orders.port) as listener:
            log.info("listening on %s; Ctrl-C stops it", origin(listener))
            _serve(orders, listener)
        return
    with listening(orders.host, orders.port, shared=True) as listener:
        log.info("listening on %s with %d processes; Ctrl-C stops it", origin(listener), orders.processes)
        job = Job(child, (orders, listener.getsockname()[1]), "server")
        supervise([job] * orders.processes, log=log, told_text="draining; no request is lost")


def child(orders: Orders, port: int, parent: int) -> None:
    """Run one process of several, on a port that their parent keeps; it ends with the parent."""
    _child(orders, listening(orders.host, port, shared=True), parent)


def only_child(orders: Orders, listener: socket.socket, parent: int) -> None:
    """Run the only process of a parent that does other things, on its socket; it ends with the parent."""
    _child(orders, listener, parent)


def _child(orders: Orders, on: AbstractContextManager[socket.socket], parent: int) -> None:
    log_on_stderr()
    log.setLevel(logging.INFO)
    # Ctrl-C goes to the whole group of processes; the parent passes on what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with tracing.exporting(), on as listener:
            _serve(orders, listener, parent=parent)
    except RefoldError as error:
        log.error("%s %s", error, error.remedy or "")
        sys.exit(REFUSED)


def _serve(orders: Orders, listener: socket.socket, *, parent: int | None = None) -> None:
    door = Door(orders.url)
    config = settings(
        application(door),
        last_s=LAST_S,
        loop="uvloop",
        lifespan="on",
        proxy_headers=bool(orders.trust_proxy),
        forwarded_allow_ips=orders.trust_proxy or None,
        backlog=BACKLOG,
    )
    _Server(config, door, orders.drain_delay, parent).serve_on(listener)


class _Server(Server):
    """A server that drains before it closes its listener."""

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
