"""The dashboard as a process, from the first request to a signal."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from anyio.to_thread import current_default_thread_limiter

from refold.dashboard.app import create_app
from refold.dashboard.tokens import Tokens
from refold.errors import InputError, RefoldError
from refold.postgres.connect import connection
from refold.service.processes import REFUSED, in_child
from refold.store.schema.installed import check
from refold.visible import log_on_stderr
from refold.web.hosts import is_loopback
from refold.web.listener import listening, origin
from refold.web.server import Server, settings

log = logging.getLogger("refold.dashboard")

LAST_S = 5
"""Seconds that requests have to end once the listener is closed."""
REQUESTS = 200
"""Most requests at a time; further ones are told to come again."""


@dataclass(frozen=True, slots=True)
class Orders:
    """The configuration of the dashboard.

    Args:
        url: libpq URL.
        host: address to listen on.
        port: port to listen on; 0 draws a free one.
        tokens: the tokens; without any it is read-only.
        trust_proxy: addresses of proxies whose X-Forwarded-… headers are believed.
        names: further names by which it may be called, such as a proxy's.
        projections: folder with the code of transforms, for retries and explanations.
    """

    url: str
    host: str = "127.0.0.1"
    port: int = 8642
    tokens: Tokens = field(default_factory=Tokens)
    trust_proxy: str = ""
    names: tuple[str, ...] = ()
    projections: Path | None = None


def run(orders: Orders) -> None:
    """Serve the dashboard until a signal.

    Raises:
        DatabaseError: refold is not installed, or the login may not act as refold_observer.
        InputError: a token is missing, or the address cannot be listened on.
    """
    insist_on_token(orders.host, orders.tokens)
    with connection(orders.url, "refold_observer", autocommit=True) as conn:
        check(conn)
    with listening(orders.host, orders.port) as listener:
        server = DashboardServer(orders)
        log.info("dashboard on %s%s; Ctrl-C stops it", origin(listener), "" if orders.tokens.any else ", read-only")
        server.serve_on(listener)


def child(orders: Orders, listener: socket.socket, parent: int) -> None:
    """Serve the dashboard in a process of its own, on its parent's socket; it ends with the parent."""
    log_on_stderr()
    told = in_child()
    try:
        with listener:
            DashboardServer(orders, stopped=lambda: told() or os.getppid() != parent).serve_on(listener)
    except RefoldError as error:
        log.error("%s %s", error, error.remedy or "")
        sys.exit(REFUSED)


def insist_on_token(host: str, tokens: Tokens) -> None:
    """Raise InputError if others than this machine could reach a dashboard without a token."""
    if not tokens.any and not is_loopback(host):
        raise InputError(
            f"others could reach {host}, and there is no token",
            remedy="Give --token-file FILE (openssl rand -hex 24 > FILE; chmod 600 FILE), or listen on 127.0.0.1.",
        )


class DashboardServer(Server):
    """The server of the dashboard.

    It can also run in a thread of a process that does other things: then `should_exit` ends it.

    Args:
        orders: the configuration.
        stopped: says whether to stop, in a child process, which leaves signals to its parent.
    """

    def __init__(self, orders: Orders, stopped: Callable[[], bool] | None = None) -> None:
        self._stopped = stopped
        self._app = create_app(
            orders.url,
            host=orders.host,
            names=orders.names,
            tokens=orders.tokens,
            closed=not is_loopback(orders.host),
            trust_proxy=orders.trust_proxy,
            projections=orders.projections,
            trace_url=os.environ.get("REFOLD_TRACE_URL", ""),
        )
        super().__init__(settings(self._app, last_s=LAST_S, lifespan="off", limit_concurrency=REQUESTS))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # As many threads as requests: those that wait for the database's answer hold up no others.
        current_default_thread_limiter().total_tokens = REQUESTS
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        self._app.state.dashboard.close()

    async def on_tick(self, counter: int) -> bool:
        return (self._stopped is not None and self._stopped()) or await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if self._stopped is not None:
            yield
            return
        with super().capture_signals():
            yield
