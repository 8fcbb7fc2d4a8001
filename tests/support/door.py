"""A running `refold serve`, and a client for it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from refold.postgres.connect import connection
from refold.store.tokens import create

READY_S = 30.0


@dataclass
class Reply:
    """What the door has answered."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content)


@dataclass
class Served:
    """A process of `refold serve`, with a token for it.

    Args:
        url: of the database.
        log: file of what it says.
        options: further ones of the command.
        environment: further variables.
    """

    url: str
    log: Path
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    token: str = ""
    port: int = 0
    process: subprocess.Popen[bytes] = field(init=False)

    def __enter__(self) -> Self:
        if not self.token:
            with connection(self.url, "refold_owner", autocommit=True) as conn:
                self.token, _ = create(conn, f"t{time.monotonic_ns()}", source="tests")
        self.start()
        return self

    def start(self) -> None:
        """Starts the process, and waits until it may take traffic."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "refold",
                    "serve",
                    "--port",
                    str(self.port),
                    "--drain-delay",
                    "0",
                    *self.options,
                ],
                env={**os.environ, "REFOLD_DATABASE_URL": self.url, **self.environment},
                stderr=log,
                stdout=log,
            )
        end = time.monotonic() + READY_S
        while time.monotonic() < end:
            found = re.findall(rb"listening on http://127\.0\.0\.1:(\d+)", self.log.read_bytes())
            if found:
                self.port = int(found[-1])
                try:
                    if self.get("/readyz").status == 200:
                        return
                except OSError:
                    pass
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError(f"refold serve is not ready: {self.log.read_text()}")

    def connect(self, timeout: float = 30) -> http.client.HTTPConnection:
        """Opens a connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def get(self, path: str) -> Reply:
        return self.request("GET", path)

    def post(self, content: Any, path: str = "/v1/events", *, as_: str = "application/json", **headers: str) -> Reply:
        """Sends a value as JSON, or bytes as they are."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if as_:
            given.setdefault("Content-Type", as_)
        return self.request(
            "POST", path, content if isinstance(content, bytes) else json.dumps(content).encode(), given
        )

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Reply:
        """Sends one request over a connection of its own."""
        client = self.connect()
        try:
            client.request(method, path, body, {"Authorization": f"Bearer {self.token}", **(headers or {})})
            answer = client.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            client.close()

    def stop(self, signal_: int = signal.SIGTERM) -> int:
        """Stops the process, and gives its exit status."""
        self.process.send_signal(signal_)
        return self.process.wait(40)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
