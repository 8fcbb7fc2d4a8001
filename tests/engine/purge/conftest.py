"""A log of sealed and archived segments, with a project that goes on when they leave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import SourceEvent, append
from refold.engine.archive import ownership, write
from refold.engine.archive.object_store import Store, open_store
from refold.engine.purge.fold import fold
from refold.engine.purge.purge import Purged, let_go, purge
from refold.engine.reconcile.audit import audit, quick
from refold.engine.reconcile.reconcile import reconcile
from refold.engine.reconcile.result import ReconcileReport
from refold.model.projection.definition import Definition, load_directory
from refold.model.stream.slices import POSITION_BITS
from refold.postgres.rows import one_row
from refold.service.worker.loop import Worker
from refold.store import archives
from refold.store.archives import Archive
from refold.store.builds.build import Build, find
from refold.store.builds.compiled import Compiler
from refold.store.log.seal import seal
from refold.store.totals import count_events
from tests.support.law import random_events, worker_connection, wrong_metrics
from tests.support.live import PROJECTS
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]
PROJECT = PROJECTS / "archived"
SLICE = 1 << POSITION_BITS
ENDS = (SLICE // 2, 2 * SLICE, 3 * SLICE, 4 * SLICE, 5 * SLICE)
"""Ends of the log's segments: the first border cuts a slice."""


@dataclass
class Yard:
    """A database in which a project is live, its archive, and a copy of every event that was ever appended.

    Args:
        url: the database.
        admin: a superuser's connection.
        worker: a worker's connection.
        location: the archive.
        store: the archive's store.
    """

    url: str
    admin: Connection
    worker: Connection
    location: str
    store: Store
    compiler: Compiler = field(default_factory=lambda: Compiler(PROJECT))
    definitions: dict[str, Definition] = field(default_factory=lambda: load_directory(PROJECT))
    appended: int = 0

    def append(self, events: list[SourceEvent] | int) -> None:
        """Append events, and remember them where refold does not look."""
        if isinstance(events, int):
            events = random_events(events, seed=self.appended, prefix=f"r{self.appended}-")
        self.appended += len(events)
        append(self.admin, events)
        self.admin.execute(
            "INSERT INTO everything SELECT e.* FROM refold.events AS e"
            " WHERE NOT EXISTS (SELECT FROM everything AS k WHERE k.event_id = e.event_id)"
        )

    def skip_to(self, position: int) -> None:
        self.admin.execute("SELECT setval('refold.events_position', %s, false)", (position,))
        self.admin.execute("SELECT refold.ensure_segments()")

    def drain(self) -> None:
        Worker(self.url, PROJECT).run(drain=True)

    def fill(self, each: int = 40) -> None:
        """Put events into each of the first segments, and a few behind them; apply and seal."""
        for end in ENDS[:3]:
            self.append(each)
            self.skip_to(end)
        self.append(each)
        self.drain()
        self.seal()

    def seal(self) -> None:
        def all_of_them() -> bool:
            seal(self.worker)
            waits = "SELECT count(*) FROM refold.sealed_slices WHERE sealed_at IS NULL"
            return self.admin.execute(waits).fetchone() == (0,)

        wait_until(all_of_them, 60)

    def archive(self) -> list[Archive]:
        if archives.claim_of(self.worker) is None:
            ownership.claim(self.worker, self.store, self.location)
        write.run(self.worker, by="the test", older_than_s=0)
        return archives.find(self.worker, "a.state = 'verified'")

    def builds(self) -> list[Build]:
        return find(self.worker, "b.state IN ('building', 'live')")

    def build(self, name: str) -> Build:
        return find(self.worker, "b.projection = %s", name)[-1]

    def of_log(self) -> list[Build]:
        return [one for one in self.builds() if one.upstream_id is None]

    def fold(self, archive: Archive, *, step: int = SLICE // 4) -> None:
        for build in self.of_log():
            if build.upkeep in ("merge", "members"):
                while not fold(self.worker, self.compiler, build, archive, step=step):
                    pass

    def count(self) -> None:
        """Count all events, as a duty does."""
        count_events(self.worker)

    def let_go(self, archive: Archive) -> None:
        """Purge a folded segment, without dropping its table."""
        assert let_go(self.worker, archive) == []

    def purge(self) -> Purged:
        """Purge every segment that is sealed."""
        self.count()
        (now,) = one_row(self.admin, "SELECT clock_timestamp()")
        return purge(self.worker, self.compiler, limit=now)

    def wrong(self) -> dict[str, Any]:
        """The metrics that differ from the independent count over all events that were ever appended."""
        return wrong_metrics(self.url, self.definitions, log="public.everything")

    def look(self) -> None:
        """Every build equals its query, and its rows have their checksums."""
        for build in self.builds():
            compiled = self.compiler.of(self.worker, build)
            assert quick(self.worker, compiled) == [], build.table_name
            found = audit(self.worker, compiled, keep=True)
            assert (found.suspects, found.report.findings) == (set(), []), build.table_name

    def reconcile(self, *, deep: bool = True) -> ReconcileReport:
        return reconcile(self.worker, self.compiler, depth="deep" if deep else "slice", by="the test")

    def incidents(self) -> list[tuple[str, str]]:
        return self.admin.execute(
            "SELECT kind, subject FROM refold.incidents WHERE resolved_at IS NULL ORDER BY 1, 2"
        ).fetchall()


def segments_of(admin: Connection, *ends: int) -> None:
    """Cut an empty log into segments with these ends."""
    for (segment,) in admin.execute("SELECT segment::text FROM refold.segments").fetchall():
        admin.execute(f"DROP TABLE {segment}".encode())
    with admin.transaction():
        admin.execute("SET LOCAL ROLE refold_owner")
        for lower, upper in zip((1, *ends), ends, strict=False):
            admin.execute("SELECT refold.create_segment(%s, %s)", (lower, upper))


@pytest.fixture
def yard(database_url: str, admin: Connection, tmp_path: Path) -> Iterator[Yard]:
    """A project over a log of sealed segments, each in the archive; the tests are marked `live("archived")`."""
    segments_of(admin, *ENDS)
    admin.execute("CREATE TABLE everything (LIKE refold.events)")
    location = str(tmp_path / "archive")
    with worker_connection(database_url) as worker:
        made = Yard(database_url, admin, worker, location, open_store(location))
        made.fill()
        made.archive()
        yield made
