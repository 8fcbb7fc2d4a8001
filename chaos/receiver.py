"""A receiver of webhooks that lies: it takes rows and hangs up, refuses them, hangs, or answers what means nothing.

It honours versions, as a receiver should: of each row it keeps the newest.
"""

from __future__ import annotations

import json
import random
import threading
import time
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "whsec_Y2hhb3MgY2hhb3MgY2hhb3MgY2hhb3MgY2hhb3M="
HONEST = 0.7
"""Share of requests that it answers as it should."""
LIES = ("500", "503", "429", "408", "413", "400", "301", "404", "taken, and hung up", "nothing", "hung up")


class LyingReceiver:
    """The server, and what it has been given.

    Args:
        seed: decides its lies.
    """

    def __init__(self, seed: int) -> None:
        self.honest = False
        self.requests = 0
        self.erasures: set[str] = set()
        self._chance = random.Random(seed)
        self._rows: dict[str, tuple[tuple[int, int], Any]] = {}
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                receiver._answer(self, self.rfile.read(int(self.headers["content-length"])))

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def rows(self) -> list[Any]:
        """The newest row of each key that is not gone."""
        with self._lock:
            return [row for _, row in self._rows.values() if row is not None]

    def close(self) -> None:
        """Ends the server."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        with self._lock:
            self.requests += 1
            lie = None if self.honest or self._chance.random() < HONEST else self._chance.choice(LIES)
            if lie in (None, "taken, and hung up"):
                self._take(body)
        match lie:
            case "nothing":
                time.sleep(4)
            case "hung up" | "taken, and hung up":
                handler.close_connection = True
            case _:
                handler.send_response(int(lie or 200))
                handler.send_header("content-length", "0")
                handler.send_header("retry-after", "1")
                handler.end_headers()

    def _take(self, body: bytes) -> None:
        data = json.loads(body, parse_float=Decimal)["data"]
        if "erasure" in data:
            self.erasures.add(data["erasure"])
        if "version" not in data:
            return
        epoch, number = map(int, data["version"].split("."))
        for change in data["changes"]:
            key = json.dumps(change["key"], sort_keys=True, default=str)
            kept = self._rows.get(key)
            if kept is None or kept[0] <= (epoch, number):
                self._rows[key] = (epoch, number), change["row"]
