"""A receiver of webhooks that answers as a test tells it, and keeps what it was sent."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Received:
    """A request: its headers and body."""

    headers: dict[str, str]
    body: bytes

    @property
    def changes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.body)["data"]["changes"]
        return found


@dataclass
class Hook:
    """The server.

    Args:
        url: where it listens.
        answer: called with each request; returns the status and headers, or does something else with the socket.
    """

    url: str = ""
    answer: Callable[[Received, BaseHTTPRequestHandler], tuple[int, dict[str, str]] | None] = lambda request, handler: (
        200,
        {},
    )
    received: list[Received] = field(default_factory=list)
    connections: int = 0

    def status(self, number: int, **headers: str) -> None:
        """Answer every request with a status."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answer = lambda request, handler: (number, given)

    @property
    def ids(self) -> list[str]:
        return [one.headers["webhook-id"] for one in self.received]

    def table(self) -> dict[str, Any]:
        """Return the rows of a receiver that honours versions: the newest of each key."""
        newest: dict[str, tuple[tuple[int, int], Any]] = {}
        for request in self.received:
            data = json.loads(request.body).get("data", {})
            if "version" not in data:
                continue
            epoch, number = map(int, data["version"].split("."))
            for change in data["changes"]:
                key = json.dumps(change["key"], sort_keys=True)
                if key not in newest or newest[key][0] <= (epoch, number):
                    newest[key] = (epoch, number), change["row"]
        return {key: row for key, (_, row) in newest.items() if row is not None}


@contextmanager
def hook() -> Iterator[Hook]:
    """Run a receiver."""
    made = Hook()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            made.connections += 1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            request = Received({name.lower(): value for name, value in self.headers.items()}, body)
            answer = made.answer(request, self)
            if answer is None:
                self.close_connection = True
                return
            if 200 <= answer[0] < 300:
                made.received.append(request)
            said = f"answer {answer[0]}".encode()
            self.send_response(answer[0])
            for name, value in answer[1].items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def trickle(request: Received, handler: BaseHTTPRequestHandler) -> None:
    """Answer a byte now and then, without an end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for _ in range(100):
        try:
            handler.wfile.write(b"x-more: 1\r\n")
            handler.wfile.flush()
        except OSError:
            return
        time.sleep(0.1)


def hang(request: Received, handler: BaseHTTPRequestHandler) -> None:
    """Answer nothing."""
    time.sleep(3)


def hang_up(request: Received, handler: BaseHTTPRequestHandler) -> None:
    """Close the connection."""
    handler.connection.close()
