"""A table of a shop, captures that a test writes for it, and the events that they make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg

from refold.engine.capture.backfill import backfill
from refold.engine.capture.deploy import deploy, plan
from refold.engine.capture.probe import checked
from refold.errors import RefoldError, at_once
from refold.model.capture.capture_file import load_captures
from refold.postgres.connect import connect
from refold.store.captures import Backfill, Capture, known

Connection = psycopg.Connection[Any]

TABLE = """
CREATE SCHEMA shop;
CREATE TABLE shop.orders (
    id bigint PRIMARY KEY, customer integer, status text DEFAULT 'new', amount numeric DEFAULT 1,
    created_at timestamptz DEFAULT '2026-03-01 09:00:00+00', note json
)
"""
ORDERS = """
table = "shop.orders"
operations = ["insert", "update", "delete"]
user = "row.customer"
action = "'order ' || row.status"
time = "row.created_at"
metadata = "jsonb_build_object('share', 100 / row.amount)"
columns = ["status", "amount"]
[update]
metadata = "jsonb_build_object('from', old.status, 'to', new.status)"
[delete]
action = "'order deleted'"
"""


class Captured:
    """Captures of a test's own; the fixture `captured` makes it, with the table `shop.orders`."""

    def __init__(self, folder: Path, url: str, admin: Connection) -> None:
        self.folder, self.url, self.admin = folder, url, admin

    def deploy(self, url: str | None = None, **files: str) -> None:
        """Writes files, and deploys all of the folder; mistakes are raised at once."""
        for name, text in files.items():
            (self.folder / f"{name}.toml").write_text(text)
        mistakes: list[RefoldError] = []
        loaded = load_captures(self.folder, mistakes)
        fitting = checked(self.admin, loaded, mistakes)
        if mistakes:
            raise at_once(mistakes)
        with connect(url or self.url, "refold_capture", autocommit=True) as conn:
            deploy(conn, plan(conn, fitting, {one.name for one in loaded}))

    def capture(self, name: str = "orders") -> Capture:
        return known(self.admin, name)

    def backfill(self, name: str = "orders", step: int = 3) -> Backfill:
        with connect(self.url, "refold_capture", autocommit=True) as conn:
            return backfill(conn, known(conn, name), lambda now: None, step=step)

    def events(self) -> list[tuple[Any, ...]]:
        """Key and operation of every event of a capture, with its action, in the order of the log."""
        rows = self.admin.execute("SELECT event_id, action FROM refold.events ORDER BY position").fetchall()
        return [(*event_id.split(":")[2:4], action) for event_id, action in rows]

    def ids(self) -> list[str]:
        return [one for (one,) in self.admin.execute("SELECT event_id FROM refold.events ORDER BY position").fetchall()]

    def rejected(self) -> list[tuple[Any, ...]]:
        return self.admin.execute("SELECT source, reason FROM refold.rejected ORDER BY rejected_id").fetchall()

    def inserts(self) -> list[int]:
        """Keys of the events of inserts, live or of a backfill, in order; a key that stands twice has two events."""
        return sorted(int(key) for key, operation, _ in self.events() if operation == "insert")
