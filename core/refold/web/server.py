"""uvicorn, as every server of pages runs it."""

from __future__ import annotations

import logging
import socket
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from refold.errors import RefoldError
from refold.web.protocol import Protocol

KEEP_ALIVE_S = 75
"""Seconds for which a connection without a request stays open."""


def settings(app: ASGIApp, *, last_s: int, **more: Any) -> uvicorn.Config:
    """Return the settings of a server.

    Args:
        app: what it serves.
        last_s: seconds that requests have to end once the listener is closed.
        more: uvicorn's further settings. X-Forwarded-… headers are believed only if these say so.
    """
    chosen: dict[str, Any] = {"proxy_headers": False} | more
    return uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=last_s,
        **chosen,
    )


class Server(uvicorn.Server):
    """A server that ends with success after a signal; a second one ends it at once."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True

    def serve_on(self, listener: socket.socket) -> None:
        """Serve until a signal.

        Raises:
            RefoldError: it could not start.
        """
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self.run([listener])
        if not self.started:
            raise RefoldError("the server could not start; see its message above")
