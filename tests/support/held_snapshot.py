"""A metric that changes a row a page, and somebody who holds a snapshot meanwhile: what reads it must not grow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from refold import append
from refold.engine.apply.page import apply_next_page
from refold.engine.deployment.deploy import deploy
from refold.model.projection.definition import load_directory
from refold.postgres import session
from refold.postgres.connect import connect as connect_as
from refold.store.builds.build import live
from refold.store.builds.compiled import CompiledBuild, Compiler
from tests.support.making import MONDAY_MS

Connection = psycopg.Connection[Any]

UNCHANGED = 1.5
"""So many times the blocks that were read at first may be read in the end."""


@dataclass(frozen=True, slots=True)
class Changing:
    """The metric `counts`.

    Args:
        worker: keeps it.
        producer: appends to the log.
        compiled: its SQL.
    """

    worker: Connection
    producer: Connection
    compiled: CompiledBuild

    def page(self, number: int) -> None:
        """Appends the event of a number, and applies it: a page of its own."""
        append(self.producer, [{"id": str(number), "action": "view", "ts": MONDAY_MS}])
        applied = apply_next_page(self.worker, self.compiled, 100)
        assert applied is not None and applied.events == 1


@contextmanager
def changing(url: str, connect: Callable[..., Connection], folder: Path) -> Iterator[Changing]:
    """Deploys `counts` from a folder, over sessions of its own."""
    (folder / "counts.sql").write_text("SELECT action, count(*) AS events FROM events GROUP BY action")
    with (
        connect_as(url, "refold_worker", autocommit=True, settings=session.PAGES) as worker,
        connect(autocommit=True) as producer,
    ):
        deploy(worker, folder, load_directory(folder), lambda progress: None)
        build = live(worker, "counts")
        assert build is not None
        yield Changing(worker, producer, Compiler(None).of(worker, build))


@contextmanager
def held_snapshot(connect: Callable[..., Connection]) -> Iterator[None]:
    """Holds a snapshot until the block ends, so that nothing can be vacuumed."""
    with connect() as holder:
        holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        holder.execute("SELECT count(*) FROM refold.events")
        yield
        holder.rollback()
