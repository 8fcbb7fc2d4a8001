"""A log of a few months, and metrics by day, by hour and by month, of which old rows go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
from psycopg import sql

from refold import SourceEvent, append
from refold.engine.reconcile.audit import audit, quick
from refold.engine.reconcile.reconcile import reconcile
from refold.engine.reconcile.result import ReconcileReport
from refold.engine.retain.let_go import let_go
from refold.model.projection.definition import load_directory
from refold.service.worker.loop import Worker
from refold.store import retentions
from refold.store.builds.build import Build, live, live_builds
from refold.store.builds.compiled import Compiler
from tests.support.law import MONDAY, broken, random_events, worker_connection
from tests.support.live import PROJECTS

PROJECT = PROJECTS / "retained"
FIRST = MONDAY.date()
DAYS = 90
"""Days over which events are spread."""
UNITS = {"months": "month"}
"""The time of a row, where it is not a day."""
BY_TIME = ("by_day", "users", "hours", "months", "usual", "levels")
"""The metrics whose rows have a day in their key."""


def spread(number: int, seed: int, prefix: str) -> list[SourceEvent]:
    """Random events of all days, late ones too."""
    random = Random(seed)
    return [
        SourceEvent(
            id=one.id,
            user_id=one.user_id,
            action=one.action,
            ts=one.ts + timedelta(days=random.randrange(2, DAYS)),
            metadata=one.metadata,
        )
        for one in random_events(number, seed, prefix=prefix)
    ]


@dataclass
class Retained:
    """A database in which the project is live.

    Args:
        url: the database.
        admin: a superuser's connection.
        worker: a worker's connection.
    """

    url: str
    admin: psycopg.Connection[Any]
    worker: psycopg.Connection[Any]
    folder: Path = PROJECT
    compiler: Compiler = field(default_factory=lambda: Compiler(PROJECT))
    appended: int = 0

    def append(self, number: int) -> None:
        append(self.admin, spread(number, self.appended, f"r{self.appended}-"))
        self.appended += number

    def late(self, *days: date) -> None:
        """An event on each of some days."""
        append(
            self.admin,
            [
                SourceEvent(
                    id=f"late-{self.appended}-{at}",
                    user_id="u1",
                    action="buy",
                    ts=MONDAY + (day - FIRST),
                    metadata={"n": 5, "place": "x"},
                )
                for at, day in enumerate(days)
            ],
        )
        self.appended += len(days)

    def drain(self) -> None:
        Worker(self.url, self.folder).run(drain=True)

    def build(self, name: str) -> Build:
        found = live(self.worker, name)
        assert found is not None
        return found

    def retain(self, name: str, first: date, *, rows: int = 50_000) -> int:
        """What the command does; gives how many rows went."""
        retentions.put(self.worker, name, keep_from=first)
        wanted = retentions.find(self.worker, name)
        assert wanted is not None
        return let_go(self.worker, self.compiler, wanted, rows=rows)

    def retain_all(self, first: date) -> None:
        for name in BY_TIME:
            self.retain(name, first)

    def look(self) -> None:
        """Every build equals its query, in the slices that it keeps, and its rows have their checksums."""
        for build in live_builds(self.worker):
            assert broken(self.worker, self.compiler, build.build_id) == [], build.table_name
            compiled = self.compiler.of(self.worker, build)
            assert quick(self.worker, compiled) == [], build.table_name
            found = audit(self.worker, compiled, keep=True)
            assert (found.suspects, found.report.findings) == (set(), []), build.table_name

    def wrong(self) -> dict[str, Any]:
        """The metrics that differ from their file's query over the events of the days that they keep.

        It knows nothing of refold but names of schemas, and `refold.builds.retained_from`.
        """
        found: dict[str, Any] = {}
        with psycopg.connect(self.url) as conn:
            conn.execute("SET search_path = pg_temp, refold, pg_catalog; SET TimeZone = 'UTC'")
            for name in load_directory(self.folder):
                self._view(conn, "events", "TABLE refold.events", name)
                if name != "clicks":
                    self._view(conn, "clicks", (self.folder / "clicks.sql").read_text(), name)
                self._view(conn, name, (self.folder / f"{name}.sql").read_text())
                query = sql.SQL(
                    "SELECT 'too much', * FROM (TABLE metrics.{0} EXCEPT ALL TABLE pg_temp.{0}) AS a"
                    " UNION ALL SELECT 'missing', * FROM (TABLE pg_temp.{0} EXCEPT ALL TABLE metrics.{0}) AS b"
                )
                rows = conn.execute(query.format(sql.Identifier(name))).fetchall()
                if rows:
                    found[name] = rows
                conn.execute("DROP VIEW pg_temp.events CASCADE")
            conn.rollback()
        return found

    def _view(self, conn: psycopg.Connection[Any], view: str, query: str, metric: str | None = None) -> None:
        """Make a view, over the events that a metric keeps."""
        condition = "true"
        if metric in BY_TIME and view == "events":
            condition = (
                f"date_trunc('{UNITS.get(metric, 'day')}', e.ts AT TIME ZONE 'UTC')::date >= coalesce("
                "(SELECT date '1970-01-01' + b.retained_from FROM refold.builds AS b"
                f" WHERE b.projection = '{metric}' AND b.state = 'live'), '-infinity')"
            )
        text = query.strip()
        conn.execute(f"CREATE TEMPORARY VIEW {view} AS SELECT * FROM (\n{text}\n) AS e WHERE {condition}".encode())

    def days(self, name: str) -> list[date]:
        """The days of the rows that analysts see."""
        column = {"hours": "hour::date", "months": "month"}.get(name, "day")
        return [one for (one,) in self.admin.execute(f"SELECT DISTINCT {column} FROM metrics.{name} ORDER BY 1")]

    def reconcile(self, depth: Any = "deep") -> ReconcileReport:
        return reconcile(self.worker, self.compiler, depth=depth, by="the test")


@pytest.fixture
def retained(database_url: str, admin: psycopg.Connection[Any]) -> Iterator[Retained]:
    with worker_connection(database_url) as worker:
        one = Retained(database_url, admin, worker)
        one.append(300)
        one.drain()
        yield one
