"""Histories: what producers, workers and operators do to one database, one step after the other.

A history is a list of steps drawn by Hypothesis and played by one thread over several connections, so that
transactions interleave in every way and a failure repeats. After each step the law is checked.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg

from refold import SourceEvent, append
from refold.engine.apply.load import load_step
from refold.engine.apply.page import apply_next_page
from refold.engine.apply.step import StepRunner
from refold.engine.reconcile.audit import quick
from refold.model.event.source_event import Answer
from refold.model.stream.page_sql import Stream
from refold.model.upkeep.generate import generate
from refold.model.upkeep.transform import statements as transform_statements
from refold.postgres.connect import connect
from refold.service.worker.pending import builds_with_work
from refold.store.builds.build import Build, by_id, find, kept
from refold.store.builds.compiled import CompiledBuild, Compiler, stream_of
from refold.store.builds.graph import by_depth
from tests.support.law import MONDAY, PROJECT, broken, project, worker_connection

PRODUCERS = 3
WORKERS = 2
POISON = "poison"
"""A number that is none."""
HALF = "half"
"""Another; and where two of one user are evaluated together, they fail though neither fails alone."""
TOGETHER = "halves"
"""The projection that does."""
FAILING = {
    "clicks": ("view", "buy"),
    "tagged": ("view", "buy"),
    "totals": ("view", "buy", "noise"),
    "unspoilt": ("view", "buy"),
    "visitors": ("view", "buy"),
}
"""The projections that fail for what is no number, and the actions for which they look at it."""
ONLY_POISON = ("unspoilt",)
"""Those of them that fail for poison alone."""


def poisoned(projection: str, events: Iterable[SourceEvent]) -> set[str]:
    """The ids of the events that a projection cannot process."""
    looked_at = FAILING.get(projection, ())
    fails_for = (POISON,) if projection in ONLY_POISON else (POISON, HALF)
    return {event.id for event in events if event.metadata.get("n") in fails_for and event.action in looked_at}


def left_out_together(events: Iterable[SourceEvent], waiting: set[str]) -> bool:
    """Whether those that wait are all halves of each user but one."""
    halves: dict[str | None, set[str]] = {}
    for event in events:
        if event.metadata.get("n") == HALF:
            halves.setdefault(event.user_id, set()).add(event.id)
    applied = [ids - waiting for ids in halves.values()]
    return waiting <= set().union(*halves.values()) and all(len(ids) == 1 for ids in applied)


@dataclass(frozen=True)
class Event:
    """An event before it has an id."""

    user_id: str | None
    action: str
    minute: int
    n: str | None
    place: str | None
    items: str
    version: int

    def under(self, number: int) -> SourceEvent:
        metadata: dict[str, Any] = {"items": self.items.split()}
        if self.n is not None:
            metadata["n"] = self.n if self.n in (POISON, HALF) else Decimal(self.n)
        if self.place is not None:
            metadata["place"] = self.place
        return SourceEvent(
            id=f"e{number}",
            user_id=self.user_id,
            action=self.action,
            ts=MONDAY + timedelta(minutes=self.minute),
            metadata=metadata,
            version=self.version,
        )


class LoadedCompiler(Compiler):
    """Compiler of the law's project, which is read once: parsing it takes longer than a history."""

    def __init__(self) -> None:
        super().__init__(PROJECT)

    def _make(self, conn: psycopg.Connection, build: Build, over: Stream | None = None) -> CompiledBuild:
        definition = project()[build.projection]
        stream = over or stream_of(None if build.upstream_id is None else by_id(conn, build.upstream_id))
        if definition.transform is None:
            statements = generate(definition.plan, stream, build.table_name, based=build.based)
        else:
            statements = transform_statements(definition.transform, stream, build.table_name, based=build.based)
        return CompiledBuild(
            build.build_id,
            build.upstream_id,
            definition.plan,
            stream,
            statements,
            definition.transform,
            based=build.based,
        )


class History:
    """One database, and everybody's connections to it.

    Args:
        url: a database in which the law's project is live, over an empty log.
    """

    def __init__(self, url: str) -> None:
        self._stack = ExitStack()
        enter = self._stack.enter_context
        self.producers = [enter(connect(url, "refold_producer")) for _ in range(PRODUCERS)]
        self.workers = [enter(worker_connection(url)) for _ in range(WORKERS)]
        self.holding: list[ExitStack | None] = [None] * WORKERS
        self.operator = enter(worker_connection(url))
        self.compiler = LoadedCompiler()
        self.committed: dict[str, SourceEvent] = {}
        self.pending: list[dict[str, SourceEvent]] = [{} for _ in range(PRODUCERS)]
        self.looks: list[list[CompiledBuild]] = [[], []]
        for worker in range(WORKERS):
            self.look(worker)

    def close(self) -> None:
        """Ends every transaction and connection."""
        for worker in range(WORKERS):
            self.let_go(worker, commit=False)
        self._stack.close()

    def check(self, build_id: int) -> None:
        """The law for a build and everything that reads it directly; fails with the differences."""
        for build in find(
            self.operator, "%s IN (b.build_id, b.upstream_id) AND b.state IN ('building', 'live')", build_id
        ):
            differences = broken(self.operator, self.compiler, build.build_id)
            assert not differences, f"{build.table_name} is not its query over what it has applied: {differences}"
            if build.loaded:
                compiled = self.compiler.of(self.operator, build)
                wrong = quick(self.operator, compiled)
                assert not wrong, f"{build.table_name} is not what its checksums say: {wrong}"

    # Producers

    def end(self, producer: int, *, commit: bool) -> None:
        conn, pending = self.producers[producer], self.pending[producer]
        if commit:
            conn.commit()
            self.committed |= pending
        else:
            conn.rollback()
        self.pending[producer] = {}

    def offer(self, producer: int, events: list[SourceEvent]) -> dict[str, SourceEvent]:
        """Appends, and returns what was accepted. An id that another open transaction holds would wait for it."""
        held = {id for other, pending in enumerate(self.pending) if other != producer for id in pending}
        offered = [event for event in events if event.id not in held]
        receipts = append(self.producers[producer], offered)
        known = self.committed | self.pending[producer]
        accepted: dict[str, SourceEvent] = {}
        for event, receipt in zip(offered, receipts, strict=True):
            before = known.get(event.id) or accepted.get(event.id)
            expected = Answer.accepted if before is None else Answer.duplicate if before == event else Answer.conflict
            assert receipt.answer is expected
            if before is None:
                accepted[event.id] = event
        return accepted

    # Workers

    def look(self, worker: int) -> None:
        """A worker looks at the builds there are; until its next look it acts on what it saw."""
        builds = by_depth(self.operator, kept(self.operator))
        self.looks[worker] = [self.compiler.of(self.operator, build) for build in builds]

    def let_go(self, worker: int, *, commit: bool) -> None:
        """Ends a page that a worker has left open."""
        held, self.holding[worker] = self.holding[worker], None
        if held is not None:
            if commit:
                held.close()
            else:
                held.__exit__(psycopg.Rollback, psycopg.Rollback(), None)

    def drain(self, limit: int) -> None:
        """Everything ends: transactions, loads, pages; every deployment goes live."""
        for producer in range(PRODUCERS):
            self.end(producer, commit=True)
        for worker in range(WORKERS):
            self.let_go(worker, commit=True)
        runner = StepRunner(self.operator, self.compiler)
        for _ in range(10_000):
            todo = builds_with_work(self.operator)
            for build in todo:
                compiled = self.compiler.of(self.operator, build)
                if build.loaded:
                    apply_next_page(self.operator, compiled, limit)
                else:
                    load_step(self.operator, compiled, step=50, bucket=100_000)
            if not todo and not runner.promote_ready():
                return
        raise AssertionError(f"no end of work: {[build.table_name for build in builds_with_work(self.operator)]}")
