"""While somebody holds an old snapshot nothing can be vacuumed: what pages and scrapes read must not grow with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from refold.dashboard.ask import Ask
from refold.dashboard.database import Database, Shared
from refold.dashboard.registry import PAGES
from refold.dashboard.tokens import Grade
from refold.engine.reconcile.audit import quick
from refold.exporter.exporter import ROLE
from refold.exporter.readings import read
from refold.postgres.connect import Role
from refold.postgres.connect import connect as connect_as
from refold.store.builds.compiled import Compiler
from tests.support.blocks import FLUSH, blocks
from tests.support.held_snapshot import UNCHANGED, Connection, changing, held_snapshot

CHANGES = 300
PROOFS = 80
SPARE = 8
"""So many blocks more may be read after all these changes: an index has a level more."""


class Kept(Database):
    """A database with one session for each role, which reports what it has read at once."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._url = url
        self.sessions: dict[Role, Connection] = {}

    def ask(self, role: Role, question: Callable[[Connection], Any]) -> Any:
        if role not in self.sessions:
            self.sessions[role] = connect_as(self._url, role, autocommit=True)
        answer = question(self.sessions[role])
        self.sessions[role].execute(FLUSH)
        return answer

    def close(self) -> None:
        for conn in self.sessions.values():
            conn.close()


@pytest.mark.slow
def test_pages_and_a_scrape_read_no_more_than_at_first(
    database_url: str, connect: Callable[..., Connection], tmp_path: Path
) -> None:
    database = Kept(database_url)
    grades: tuple[Grade, ...] = ("nobody", "evidence")
    with changing(database_url, connect, tmp_path) as counts, connect(autocommit=True) as watch:

        def measured(look: Callable[[], object]) -> dict[str, int]:
            before = blocks(watch)
            look()
            return {name: count - before.get(name, 0) for name, count in blocks(watch).items()}

        def all_measured() -> dict[str, dict[str, int]]:
            counts.worker.execute(FLUSH)
            counts.producer.execute(FLUSH)
            found = {"a scrape": measured(lambda: database.ask(ROLE, read))}
            for page in PAGES:
                if not page.still:
                    for grade in grades:
                        ask = Ask(database, Shared(), grade, {"name": "counts"}, {}, Compiler(None))
                        found[f"{page.path} for {grade}"] = measured(lambda page=page, ask=ask: page.read(ask))  # type: ignore[misc]
            return found

        for number in range(20):
            counts.page(number)
        all_measured()
        with held_snapshot(connect):
            first = all_measured()
            for number in range(20, CHANGES):
                counts.page(number)
            for _ in range(PROOFS):
                quick(counts.worker, counts.compiled, proves=True)
            last = all_measured()
    database.close()
    assert len(first) > 15 and all(any(one.values()) for one in first.values())
    grown = {
        (what, table): (first[what].get(table, 0), count)
        for what, tables in last.items()
        for table, count in tables.items()
        # The events of the last minute are counted, up to a few thousand.
        if not table.startswith("events_") and count > first[what].get(table, 0) * UNCHANGED + SPARE
    }
    assert grown == {}
