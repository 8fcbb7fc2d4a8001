"""Histories: what producers, workers and operators do to one database, one step after the other.

A history is a list of steps drawn by Hypothesis and played by one thread over several connections, so that
transactions interleave in every way and a failure repeats. After each step the law is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
from hypothesis import strategies as st

from law import MONDAY, PROJECT, broken, project, worker_connection
from refold import SourceEvent, append
from refold.builds.build import Build, by_id, find, kept, lock
from refold.builds.key_indexes import key_indexes
from refold.builds.make import make_builds, new_deployment
from refold.builds.upkeeper import Upkeeper, Upkeepers, stream_of
from refold.database import connect
from refold.events import Answer
from refold.projections.definition import Definition
from refold.upkeep.generate import generate
from refold.upkeep.transform import statements as transform_statements
from refold.worker.catch_up import Keeper, by_depth
from refold.worker.load import load_step
from refold.worker.page import apply_page, turn
from refold.worker.work import waiting

PRODUCERS = 3
WORKERS = 2


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
            metadata["n"] = Decimal(self.n)
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


class LoadedUpkeepers(Upkeepers):
    """Upkeepers of the law's project, which is read once: parsing it takes longer than a history."""

    def __init__(self) -> None:
        super().__init__(PROJECT)

    def _make(self, conn: psycopg.Connection, build: Build) -> Upkeeper:
        definition = project()[build.projection]
        stream = stream_of(None if build.upstream_id is None else by_id(conn, build.upstream_id))
        if definition.transform is None:
            statements = generate(definition.plan, stream, build.table_name)
        else:
            statements = transform_statements(definition.transform, stream, build.table_name)
        return Upkeeper(build.build_id, build.upstream_id, definition.plan, stream, statements, definition.transform)


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
        self.upkeepers = LoadedUpkeepers()
        self.committed: dict[str, SourceEvent] = {}
        self.pending: list[dict[str, SourceEvent]] = [{} for _ in range(PRODUCERS)]
        self.looks: list[list[Upkeeper]] = [[], []]
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
            differences = broken(self.operator, self.upkeepers, build.build_id)
            assert not differences, f"{build.table_name} is not its query over what it has applied: {differences}"

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
        self.looks[worker] = [self.upkeepers.of(self.operator, build) for build in builds]

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
        keeper = Keeper(self.operator, self.upkeepers)
        for _ in range(10_000):
            todo = waiting(self.operator)
            for build in todo:
                upkeeper = self.upkeepers.of(self.operator, build)
                if build.loaded:
                    turn(self.operator, upkeeper, limit)
                else:
                    load_step(self.operator, upkeeper, step=50, bucket=100_000)
            if not todo and not keeper.promote_ready():
                return
        raise AssertionError(f"no end of work: {[build.table_name for build in waiting(self.operator)]}")


# ---------------------------------------------------------------- the steps

Step = Callable[[History], None]


@dataclass(frozen=True)
class Append:
    producer: int
    events: tuple[tuple[int, Event], ...]
    savepoint: bool | None
    """None for no savepoint, else whether it is kept."""

    def __call__(self, history: History) -> None:
        events = [event.under(number) for number, event in self.events]
        if self.savepoint is None:
            history.pending[self.producer] |= history.offer(self.producer, events)
            return
        conn = history.producers[self.producer]
        conn.execute("SELECT 1")  # Without an open transaction psycopg would begin and commit one here.
        with conn.transaction(force_rollback=not self.savepoint):
            accepted = history.offer(self.producer, events)
        if self.savepoint:
            history.pending[self.producer] |= accepted


@dataclass(frozen=True)
class End:
    producer: int
    commit: bool

    def __call__(self, history: History) -> None:
        history.end(self.producer, commit=self.commit)


@dataclass(frozen=True)
class Look:
    worker: int

    def __call__(self, history: History) -> None:
        history.look(self.worker)


@dataclass(frozen=True)
class Work:
    """Pages, and steps of first loads: of some builds in any order, or when none are named of each in turn."""

    worker: int
    turns: tuple[tuple[int, int], ...]

    def __call__(self, history: History) -> None:
        history.let_go(self.worker, commit=True)
        conn, look = history.workers[self.worker], history.looks[self.worker]
        turns = self.turns or [(which, 5) for which in range(len(look))]
        for which, limit in turns:
            keeper = look[which % len(look)]
            done = turn(conn, keeper, limit) or load_step(conn, keeper, step=limit, bucket=800)
            if done is not None:
                history.check(keeper.build_id)


@dataclass(frozen=True)
class Hold:
    """A page that stays open, in a transaction that may have got its id long before."""

    worker: int
    which: int
    limit: int
    early: Append | None

    def __call__(self, history: History) -> None:
        history.let_go(self.worker, commit=True)
        conn, look = history.workers[self.worker], history.looks[self.worker]
        held = ExitStack()
        held.enter_context(conn.transaction())
        history.holding[self.worker] = held
        if self.early is not None:
            conn.execute("SELECT pg_current_xact_id()")
            self.early(history)
            history.end(self.early.producer, commit=True)
        keeper = look[self.which % len(look)]
        build = lock(conn, keeper.build_id)
        if build is not None and build.loaded and build.upstream_id == keeper.upstream_id:
            apply_page(conn, keeper, build, self.limit)


@dataclass(frozen=True)
class LetGo:
    worker: int
    commit: bool

    def __call__(self, history: History) -> None:
        history.let_go(self.worker, commit=self.commit)
        for build in kept(history.operator):
            history.check(build.build_id)


@dataclass(frozen=True)
class Rebuild:
    """New builds beside the live ones, which the workers then load."""

    which: tuple[int, ...]
    cascade: bool

    def __call__(self, history: History) -> None:
        # It waits for pages in hand, which nobody else would end here.
        for worker in range(WORKERS):
            history.let_go(worker, commit=True)
        live = by_depth(history.operator, find(history.operator, "b.state = 'live'"))
        chosen = {live[which % len(live)].build_id for which in self.which}
        if self.cascade:
            for build in live:
                if build.upstream_id in chosen:
                    chosen.add(build.build_id)
        definitions = [self._definition(history, build) for build in live if build.build_id in chosen]
        with history.operator.transaction():
            deployment = new_deployment(history.operator, "rebuild", promote=True)
            make_builds(history.operator, definitions, deployment, resumed={})
        key_indexes(history.operator, history.upkeepers)

    @staticmethod
    def _definition(history: History, build: Build) -> Definition:
        keeper = history.upkeepers.of(history.operator, build)
        return Definition(build.projection, None, build.definition, keeper.plan, build.fingerprint, keeper.transform)


@dataclass(frozen=True)
class Promote:
    """Whatever is ready goes live; with `finish`, first loads end and pages are applied."""

    finish: bool

    def __call__(self, history: History) -> None:
        for worker in range(WORKERS):
            history.let_go(worker, commit=True)
        keeper = Keeper(history.operator, history.upkeepers)
        if self.finish:
            for build in by_depth(history.operator, find(history.operator, "b.state = 'building'")):
                upkeeper = history.upkeepers.of(history.operator, build)
                while load_step(history.operator, upkeeper, step=50, bucket=100_000):
                    history.check(build.build_id)
                turn(history.operator, upkeeper, 7)
        for build in keeper.promote_ready():
            history.check(build.build_id)


# ---------------------------------------------------------------- what Hypothesis draws

numbers = st.integers(0, 60)
producers = st.integers(0, PRODUCERS - 1)
workers = st.integers(0, WORKERS - 1)
which = st.integers(0, 40)
limits = st.integers(1, 5)

events = st.builds(
    Event,
    user_id=st.sampled_from([None, "u1", "u2", "user-3"]),
    action=st.sampled_from(["view", "buy", "noise"]),
    minute=st.one_of(st.integers(0, 90), st.integers(-3000, 3000)),
    n=st.sampled_from([None, "1.0", "1.00", "2.5", "7", "-3"]),
    place=st.sampled_from([None, "x", "y"]),
    items=st.sampled_from(["", "a", "bb", "a bb c", "bb a bb"]),
    version=st.sampled_from([1, 2]),
)
appends = st.builds(
    Append,
    producer=producers,
    events=st.lists(st.tuples(numbers, events), min_size=1, max_size=4).map(tuple),
    savepoint=st.sampled_from([None, None, True, False]),
)
turns = st.just(()) | st.lists(st.tuples(which, limits), min_size=1, max_size=6).map(tuple)
steps = st.one_of(
    appends,
    appends,
    st.builds(End, producer=producers, commit=st.sampled_from([True, True, True, False])),
    st.builds(Work, worker=workers, turns=turns),
    st.builds(Work, worker=workers, turns=turns),
    st.builds(Look, worker=workers),
    st.builds(Hold, worker=workers, which=which, limit=limits, early=st.none() | appends),
    st.builds(LetGo, worker=workers, commit=st.booleans()),
    st.builds(Rebuild, which=st.lists(which, min_size=1, max_size=3).map(tuple), cascade=st.booleans()),
    st.builds(Promote, finish=st.booleans()),
)
scripts = st.lists(steps, min_size=20, max_size=60)
