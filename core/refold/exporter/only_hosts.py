"""Requests that call the exporter by a name of another are refused."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from refold.web.hosts import Hosts


class OnlyHosts:
    """An ASGI application that passes on requests whose Host header names this server, and refuses others with 421.

    Args:
        app: the application behind it.
        hosts: the names of this server.
    """

    def __init__(self, app: ASGIApp, hosts: Hosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._hosts.allows(Headers(scope=scope).getlist("host")):
            refusal = PlainTextResponse("The server is not known by this name; see --allow-host.\n", 421)
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)
