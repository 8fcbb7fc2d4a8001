"""An exporter as a process of its own: `refold metrics --listen`."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import psycopg
from starlette.applications import Starlette

from refold.errors import InputError
from refold.exporter.exporter import ROLE, Exporter, log
from refold.exporter.only_hosts import OnlyHosts
from refold.exporter.routes import routes
from refold.postgres.connect import connection
from refold.web.hosts import Hosts, is_loopback
from refold.web.listener import listening, origin
from refold.web.server import Server, settings

LAST_S = 10
"""Seconds that scrapes have to end after a signal."""
CONNECTIONS = 100
"""Most connections at a time."""


def run(url: str, host: str, port: int, *, beyond_loopback: bool, names: Sequence[str] = ()) -> None:
    """Serve scrapes until a signal.

    Args:
        url: libpq URL; the login must be allowed to act as refold_observer.
        host: address to listen on.
        port: port to listen on; 0 draws a free one.
        beyond_loopback: whether other machines may reach it.
        names: names by which it may be called, beside addresses and localhost.

    Raises:
        InputError: the address cannot be listened on, or leads beyond loopback.
        DatabaseError: the login may not act as an observer.
    """
    if not beyond_loopback and not is_loopback(host):
        raise InputError(
            f"{host} can be reached from other machines",
            remedy="Whoever reaches the port sees names and figures of your metrics. If that is meant, add "
            "--beyond-loopback; a proxy that asks for a password is better.",
        )
    # A mistake in the privileges is to be seen now; a database that is away comes back.
    _try(url)
    with listening(host, port, option="--listen") as listener:
        log.info("listening on %s/metrics; Ctrl-C stops it", origin(listener))
        _serve(Exporter(url), listener, names, everywhere=beyond_loopback)


def _try(url: str) -> None:
    try:
        with connection(url, ROLE, autocommit=True, application_name="refold exporter"):
            pass
    except psycopg.OperationalError as error:
        log.warning("the database is away: %s", str(error).strip())


def _serve(exporter: Exporter, listener: socket.socket, names: Sequence[str], *, everywhere: bool) -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        exporter.close()

    config = settings(
        OnlyHosts(Starlette(routes=routes(exporter), lifespan=lifespan), Hosts(names, everywhere=everywhere)),
        last_s=LAST_S,
        lifespan="on",
        limit_concurrency=CONNECTIONS,
    )
    Server(config).serve_on(listener)
