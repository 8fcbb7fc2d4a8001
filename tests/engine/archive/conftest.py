"""A log of sealed segments, and a store for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.archive import ownership, write
from refold.engine.archive.object_store import Store, open_store
from refold.engine.archive.write import Archived
from refold.model.stream.slices import POSITION_BITS
from refold.postgres.connect import connect as connect_as
from refold.store import archives
from refold.store.archives import Archive
from refold.store.log.seal import seal
from tests.support.making import events
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]
SLICE = 1 << POSITION_BITS

ODD: list[dict[str, Any]] = [
    {"id": 'a "quoted", id', "user_id": "line\nbreak", "action": "\\.", "ts": "0001-01-01T00:00:00Z"},
    {"id": "'", "user_id": None, "action": "NULL", "ts": "9999-12-31T23:59:59.999999Z", "metadata": {}},
    {
        "id": "ü😀",
        "user_id": " ",
        "action": "\t",
        "ts": "1969-12-31T23:59:59.5Z",
        "metadata": {"n": 1.10, "t": '\n\\,"'},
    },
    {"id": "\r\n", "user_id": "\r", "action": "x", "ts": "2026-03-02T00:00:00Z", "version": 7, "metadata": {"k": "ä"}},
]
"""Events that a careless way through CSV would change."""


def segments_of(admin: Connection, *ends: int) -> None:
    """Cuts an empty log into segments with these ends."""
    for (segment,) in admin.execute("SELECT segment::text FROM refold.segments").fetchall():
        admin.execute(f"DROP TABLE {segment}".encode())
    with admin.transaction():
        admin.execute("SET LOCAL ROLE refold_owner")
        for lower, upper in zip((1, *ends), ends, strict=False):
            admin.execute("SELECT refold.create_segment(%s, %s)", (lower, upper))


@dataclass
class Shop:
    """The log, a worker's connection to it, and the store."""

    url: str
    admin: Connection
    worker: Connection
    location: str
    store: Store

    def fill(self, slices: int, each: int = 5) -> None:
        """Brings some events into each of so many slices, and passes on to the next."""
        for number in range(slices):
            new = events(each, f"s{number}-")
            append(self.admin, [*new, *([] if number else ODD)])
            self.admin.execute("SELECT setval('refold.events_position', %s, false)", ((number + 1) * SLICE,))
            self.admin.execute("SELECT refold.ensure_segments()")

    def seal(self, slices: int) -> None:
        known = "SELECT count(*) FROM refold.sealed_slices WHERE sealed_at IS NOT NULL"

        def all_of_them() -> bool:
            seal(self.worker)
            return self.admin.execute(known).fetchone() == (slices,)

        wait_until(all_of_them, 60)

    def claim(self) -> str:
        return ownership.claim(self.worker, self.store, self.location)

    def run(self) -> Archived:
        return write.run(self.worker, by="the test", older_than_s=0)

    def manifest(self) -> list[Archive]:
        return archives.find(self.worker)

    def states(self) -> list[tuple[int, str]]:
        return [(one.generation, one.state) for one in self.manifest()]

    def incidents(self) -> list[tuple[str, str]]:
        return self.admin.execute(
            "SELECT kind, subject FROM refold.incidents WHERE resolved_at IS NULL ORDER BY 1, 2"
        ).fetchall()


def shop_of(url: str, admin: Connection, worker: Connection, location: str) -> Shop:
    return Shop(url, admin, worker, location, open_store(location))


@pytest.fixture
def shop(database_url: str, admin: Connection, tmp_path: Path) -> Iterator[Shop]:
    """A log of three sealed segments, each a slice, and one that is not full; nothing is archived."""
    segments_of(admin, *(number * SLICE for number in range(1, 6)))
    with connect_as(database_url, "refold_worker", autocommit=True) as worker:
        made = shop_of(database_url, admin, worker, str(tmp_path / "archive"))
        made.fill(3)
        append(admin, events(3, "last"))
        made.seal(3)
        yield made
