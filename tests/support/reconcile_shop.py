"""A shop with events in it and every projection live: what the tests of reconcile tamper with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from refold import append
from refold.engine.apply.step import StepRunner
from refold.engine.reconcile.reconcile import reconcile
from refold.engine.reconcile.result import ReconcileReport
from refold.postgres.retry import after_deadlocks
from refold.store.builds.build import find
from refold.store.builds.checksums import fold
from refold.store.builds.compiled import Compiler
from tests.support.live import SHOP, drain, wrong
from tests.support.making import HOUR_MS, MONDAY_MS

Connection = psycopg.Connection[Any]
Row = tuple[Any, ...]


def shopping(days: int = 6, prefix: str = "e") -> list[dict[str, Any]]:
    """Eight events a day by five users, one of them anonymous."""
    return [
        {
            "id": f"{prefix}{n:03}",
            "user_id": f"u{n % 5}" if n % 5 else None,
            "action": ("view", "cart", "purchase")[n % 3],
            "ts": MONDAY_MS + n * 3 * HOUR_MS,
            "metadata": {"amount": n * 7 % 200},
        }
        for n in range(days * 8)
    ]


@dataclass
class Shop:
    """A database with the shop's projections live and up to date.

    Args:
        url: where it is.
        tables: the physical table of each projection.
        worker: a worker's connection, which may also change the tables by hand.
    """

    url: str
    tables: dict[str, str]
    worker: Connection

    def fold(self) -> None:
        """Adds up what has changed in figures: they are all in one table then."""
        for build in find(self.worker):
            fold(self.worker, build.build_id, 1_000_000)

    def tamper(self, statement: str) -> int:
        """Changes tables by hand: `{daily}` stands for the table of that projection. Gives the number of rows."""
        for attempt in after_deadlocks():  # with a page that writes the same rows in another order
            with attempt:
                changed = self.worker.execute(statement.format(**self.tables).encode()).rowcount
        return changed

    def reconcile(self, *names: str, dry_run: bool = False, since: datetime | None = None) -> ReconcileReport:
        return reconcile(self.worker, SHOP, names, dry_run=dry_run, since=since)

    def append(self, events: list[dict[str, Any]]) -> None:
        with psycopg.connect(self.url) as conn:
            append(conn, events)

    def drain(self) -> None:
        drain(self.url)

    def apply(self, *names: str) -> None:
        """Lets these projections alone read on."""
        compiled = StepRunner(self.worker, Compiler(SHOP))
        for build in find(self.worker, "b.state = 'live' AND b.projection = ANY (%s)", list(names)):
            while (done := compiled.step(build)) is not None and done.events:
                pass

    def content(self) -> dict[str, list[Row]]:
        """Every table with its rows and their physical places: what is written anew shows."""
        return {
            table: self.worker.execute(
                f"SELECT ctid::text, xmin::text, t::text FROM {table} AS t ORDER BY 1".encode()
            ).fetchall()
            for table in [*self.tables.values(), *self.members()]
        }

    def members(self) -> list[str]:
        """The tables of members, beside those that count them."""
        rows = self.worker.execute(
            r"SELECT 'refold_builds.' || tablename FROM pg_tables"
            r" WHERE schemaname = 'refold_builds' AND tablename LIKE '%\_\_m_'"
        ).fetchall()
        return sorted(table for (table,) in rows)

    def wrong(self) -> dict[str, list[Row]]:
        """What the tests' own comparison finds, which knows nothing of cursors and builds."""
        return wrong(self.url)

    def repairs(self) -> list[Row]:
        return self.worker.execute(
            "SELECT projection, kind, key, before, after, repaired_by FROM refold.repairs ORDER BY repair_id"
        ).fetchall()
