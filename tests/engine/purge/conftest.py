"""A log of sealed and archived segments, with a project that goes on when they leave."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import Receipt, SourceEvent, append
from refold.engine.archive import ownership, write
from refold.engine.archive.failures import arrow
from refold.engine.archive.object_store import Store, open_store
from refold.engine.purge.fold import fold
from refold.engine.purge.purge import Purged, let_go, purge
from refold.engine.reconcile.audit import audit, quick
from refold.engine.reconcile.reconcile import reconcile
from refold.engine.reconcile.result import ReconcileReport
from refold.model.erasure import Person
from refold.model.projection.definition import Definition, load_directory
from refold.model.stream.slices import POSITION_BITS
from refold.postgres.rows import one_row
from refold.service.worker.loop import Worker
from refold.store import archives
from refold.store.archives import Archive
from refold.store.builds.build import Build, find
from refold.store.builds.compiled import Compiler
from refold.store.erasures import Mode
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
CHANGES = {
    "daily.sql": ("    count(*)  ", "    max(version) AS newest,\n    count(*)  "),
    "by_user.sql": ("    count(*)  ", "    max(version) AS newest,\n    count(*)  "),
    "everything.sql": ("count(*) AS events", "count(*) AS events, max(version) AS newest"),
    "seen.sql": ("SELECT user_id, action", "SELECT user_id, action, max(version) AS newest"),
    "clicks.sql": ("SELECT event_id,", "SELECT event_id, version,"),
    "tagged.py": ("{event.action}-", "{event.action}/"),
}
"""What makes a definition another one, of each kind; the others read these."""


@dataclass
class Yard:
    """A database in which a project is live, its archive, and a copy of every event that was ever appended.

    Args:
        url: the database.
        admin: a superuser's connection.
        worker: a worker's connection.
        location: the archive.
        store: the archive's store.
        folder: the project.
        given: the events that were made for it.
    """

    url: str
    admin: Connection
    worker: Connection
    location: str
    store: Store
    folder: Path = PROJECT
    compiler: Compiler = field(init=False)
    definitions: dict[str, Definition] = field(init=False)
    given: list[SourceEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.read()

    def read(self) -> None:
        """Read the project as its files are now."""
        self.compiler, self.definitions = Compiler(self.folder), load_directory(self.folder)

    def prepare(self) -> None:
        """Fill the segments of an empty log, and archive them."""
        segments_of(self.admin, *ENDS)
        self.admin.execute("CREATE TABLE everything (LIKE refold.events)")
        self.fill()
        self.archive()

    def made(self, number: int) -> list[SourceEvent]:
        """Make so many events, unlike all before."""
        before = len(self.given)
        self.given += random_events(number, seed=before, prefix=f"r{before}-")
        return self.given[before:]

    def append(self, events: list[SourceEvent] | int) -> list[Receipt]:
        """Append events, and remember them where refold does not look."""
        receipts = append(self.admin, self.made(events) if isinstance(events, int) else events)
        self.remember()
        return receipts

    def remember(self) -> None:
        """Copy the events of the log that came since the last time."""
        self.admin.execute(
            "INSERT INTO everything SELECT e.* FROM refold.events AS e"
            " WHERE NOT EXISTS (SELECT FROM everything AS k WHERE k.event_id = e.event_id)"
        )

    def forget(self, person: Person, mode: Mode, keeps: Sequence[str] = ()) -> None:
        """Do to the copy of all events what an erasure shall do, and know nothing of how it does."""
        user = person.user_id
        if mode == "delete":
            self.admin.execute("DELETE FROM everything WHERE user_id = %s", (user,))
        # A token is random, and one a person; a new id is random, and that of one event.
        known = {one for (one,) in self.admin.execute("SELECT DISTINCT user_id FROM everything").fetchall()}
        standing = self.standing()
        token = next(
            (one for _, one in standing.values() if one and one.startswith("erased:") and one not in known), ""
        )
        self.admin.execute(
            "UPDATE everything SET metadata = coalesce((SELECT jsonb_object_agg(k, metadata -> k)"
            " FROM unnest(%s::text[]) AS k WHERE metadata ? k), '{}') WHERE user_id = %s",
            (list(keeps), user),
        )
        renamed = self.admin.execute("SELECT position FROM everything WHERE strpos(event_id, %s) > 0", (user,))
        fresh = {position: standing[position][0] for (position,) in renamed.fetchall()}
        assert all(event_id.startswith("erased:") for event_id in fresh.values())
        assert len(set(fresh.values())) == len(fresh)
        for position, event_id in fresh.items():
            self.admin.execute("UPDATE everything SET event_id = %s WHERE position = %s", (event_id, position))
        self.admin.execute("UPDATE everything SET user_id = %s WHERE user_id = %s", (token, user))
        for name, value in person.also:
            self.admin.execute(
                "UPDATE everything SET metadata = metadata || jsonb_build_object(%(name)s::text, %(token)s::text)"
                " WHERE metadata ->> %(name)s = %(value)s",
                {"name": name, "value": value, "token": token},
            )

    def files(self) -> dict[str, list[dict[str, Any]]]:
        """Read the rows of each file of the store by pyarrow alone."""
        return {
            path.name: arrow("pyarrow.parquet").read_table(path).to_pylist()
            for path in sorted(Path(self.location, "log").rglob("*.parquet"))
        }

    def standing(self) -> dict[int, tuple[str, str | None]]:
        """Read id and user of what stands at each position, in the log or in the archive."""
        held = self.admin.execute("SELECT position, event_id, user_id FROM refold.events").fetchall()
        held += [(row["position"], row["event_id"], row["user_id"]) for rows in self.files().values() for row in rows]
        return {position: (event_id, user) for position, event_id, user in held}

    def skip_to(self, position: int) -> None:
        self.admin.execute("SELECT setval('refold.events_position', %s, false)", (position,))
        self.admin.execute("SELECT refold.ensure_segments()")

    def drain(self) -> None:
        Worker(self.url, self.folder).run(drain=True)

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
    location = str(tmp_path / "archive")
    with worker_connection(database_url) as worker:
        made = Yard(database_url, admin, worker, location, open_store(location))
        made.prepare()
        yield made
