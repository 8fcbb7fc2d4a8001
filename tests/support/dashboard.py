"""A running dashboard, a client for it, and a database in which something has happened."""

from __future__ import annotations

import http.client
import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import psycopg

from refold import append
from refold.dashboard.run import DashboardServer, Orders
from refold.dashboard.tokens import Tokens
from refold.engine.reconcile import reconcile
from refold.postgres.connect import connect
from refold.service.duties.audits import QUICK
from refold.store.builds.compiled import Compiler
from refold.web.listener import listening
from tests.support.live import SHOP, drain, make_live
from tests.support.making import events
from tests.support.waiting import wait_until

ACTIONS = "a-token-for-actions-0123456789"
EVIDENCE = "a-token-for-evidence-012345678"
HOSTILE = '<script>document.title="owned"</script>\u202ereversed\x1b[31mred'
"""An id that a careless page would run, reverse or colour."""


@dataclass
class Reply:
    """What the dashboard has answered."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode()

    @property
    def body(self) -> Any:
        return json.loads(self.content)


@dataclass
class Running:
    """A dashboard in a thread of this process, on a port of its own."""

    url: str
    tokens: Tokens = field(default_factory=lambda: Tokens(ACTIONS, EVIDENCE))
    projections: Path = SHOP
    port: int = 0
    trust_proxy: str = ""
    names: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        self._listening = listening("127.0.0.1", 0)
        socket = self._listening.__enter__()
        self.port = socket.getsockname()[1]
        self.server = DashboardServer(
            Orders(
                self.url,
                tokens=self.tokens,
                trust_proxy=self.trust_proxy,
                names=self.names,
                projections=self.projections,
            )
        )
        self._thread = threading.Thread(target=self.server.run, args=([socket],))
        self._thread.start()
        wait_until(lambda: self.server.started)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._listening.__exit__(None, None, None)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """Sends one request; names of headers with `_` for `-`."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            client.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = client.getresponse()
            return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            client.close()

    def get(self, path: str, token: str = "", **headers: str) -> Reply:
        """Reads a page, with a token as programs send it."""
        return self.request("GET", path, None, **(headers | ({"Authorization": f"Bearer {token}"} if token else {})))

    def post(self, path: str, fields: dict[str, Any], token: str = ACTIONS, **headers: str) -> Reply:
        """Sends a form, with a token as programs send it."""
        given = headers | ({"Authorization": f"Bearer {token}"} if token else {})
        return self.request("POST", path, urlencode(fields).encode(), **given)


def happened(url: str) -> None:
    """Makes the shop live, and lets something happen: dead letters, a rejected record, a healed row, proofs."""
    make_live(url)
    with psycopg.connect(url, autocommit=True) as conn:
        append(conn, events(30))
        append(conn, events(3, "poison", action="purchase", metadata={"amount": "12,50"}))
        append(
            conn, [{"id": HOSTILE, "user_id": HOSTILE, "action": "purchase", "ts": 1, "metadata": {"amount": HOSTILE}}]
        )
        append(conn, [{"id": "", "action": HOSTILE, "ts": 1}], source=HOSTILE)
    drain(url)
    tamper(url)
    audit(url)


def tamper(url: str) -> None:
    """Changes a row of the metric `daily` by hand."""
    with psycopg.connect(url, autocommit=True) as conn:
        row = conn.execute(
            "SELECT table_name FROM refold.builds WHERE projection = 'daily' AND state = 'live'"
        ).fetchone()
        assert row is not None
        changed = conn.execute(
            f"UPDATE refold_builds.\"{row[0]}\" SET events = events + 7 WHERE action = 'view'".encode()
        )
        assert changed.rowcount


def audit(url: str, folder: Path = SHOP) -> None:
    """Does what the quick audit of a worker does."""
    with connect(url, "refold_worker", autocommit=True) as conn:
        conn.execute("INSERT INTO refold.duties (name) VALUES (%s) ON CONFLICT DO NOTHING", (QUICK,))
        reconcile(conn, Compiler(folder), depth="slice", by=QUICK)
