"""A shop some of whose prices are no numbers, and a project of every kind of projection that reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.apply.page import apply_next_page
from refold.engine.reconcile.reconcile import reconcile
from refold.engine.reconcile.result import ReconcileReport
from refold.service.worker.loop import Worker
from refold.store.builds.build import Build, find
from refold.store.builds.compiled import Compiler
from refold.store.builds.dead_letters import DeadLetter
from refold.store.builds.dead_letters import find as letters
from tests.support.live import PROJECTS, Rows, make_live, wrong
from tests.support.making import events

Connection = psycopg.Connection[Any]

FOLDER = PROJECTS / "prices"
FAILING = ("buyers", "dearest", "graded", "paid", "sums")
"""Those that read the price themselves."""

STRICT = "CREATE OR REPLACE FUNCTION public.price(text) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT $1::numeric'"
LENIENT = """
    CREATE OR REPLACE FUNCTION public.price(text) RETURNS numeric LANGUAGE sql IMMUTABLE AS
    $$ SELECT CASE WHEN $1 = 'free' THEN 0 ELSE $1::numeric END $$
"""
TRANSFORMS: Mapping[str, str] = MappingProxyType({
    "graded": """
        SELECT event_id, user_id, ts,
               CASE WHEN public.price(metadata->>'price') >= 10 THEN 'dear' ELSE 'cheap' END AS grade
        FROM events"""
})  # fmt: skip


@dataclass
class Prices:
    """A database with the project live.

    Args:
        url: where it is.
        admin: a superuser's connection.
        worker: a worker's connection.
        compiler: the builds' SQL.
        environment: of this process and those that it starts.
    """

    url: str
    admin: Connection
    worker: Connection
    compiler: Compiler
    environment: pytest.MonkeyPatch

    def deploy(self, folder: Path = FOLDER) -> None:
        make_live(self.url, folder)

    def sell(self, count: int, prefix: str = "e", free: tuple[int, ...] = ()) -> None:
        """Appends events, some of them at no price that is a number."""
        batch = events(count, prefix)
        for number, event in enumerate(batch):
            event["metadata"] = {"price": "free" if number in free else number % 20}
        with psycopg.connect(self.url) as conn:
            append(conn, batch)

    def build(self, projection: str) -> Build:
        [build] = find(self.worker, "b.state = 'live' AND b.projection = %s", projection)
        return build

    def apply(self, *projections: str, limit: int = 1000) -> None:
        """Lets these projections read on."""
        for name in projections:
            compiled = self.compiler.of(self.worker, self.build(name))
            while (done := apply_next_page(self.worker, compiled, limit)) is not None and done.events:
                pass

    def drain(self) -> None:
        Worker(self.url, FOLDER).run(drain=True)

    def waiting(self) -> list[tuple[str, str]]:
        """Projection and event of each letter that waits, for builds that are kept."""
        found = self.letters("d.state = 'waiting' AND b.state IN ('building', 'live')")
        return sorted((letter.projection, letter.event_id) for letter in found)

    def letters(self, condition: str = "true") -> list[DeadLetter]:
        return letters(self.worker, condition)

    def reconcile(self) -> ReconcileReport:
        return reconcile(self.worker, FOLDER)

    def mend(self) -> None:
        """From now on a free thing costs nothing."""
        self.admin.execute(LENIENT)
        self.environment.setenv("REFOLD_TEST_MENDED", "1")

    def wrong(self) -> dict[str, Rows]:
        """The metrics that differ from their query over the whole log, as a mended projection would have it."""
        return wrong(self.url, FOLDER, TRANSFORMS)
