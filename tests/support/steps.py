"""The steps of a history, and how Hypothesis draws them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import LiteralString

from hypothesis import strategies as st

from refold.engine.apply.load import load_step
from refold.engine.apply.page import apply_next_page, apply_page
from refold.engine.apply.step import StepRunner
from refold.engine.deployment.create import make_builds, new_deployment
from refold.engine.deployment.key_indexes import key_indexes
from refold.engine.reconcile.reconcile import Depth, reconcile
from refold.engine.reconcile.release import release
from refold.engine.reconcile.result import ReconcileReport
from refold.model.projection.definition import Definition
from refold.model.sql_text import ident
from refold.postgres.sqlstate import caused_by_event
from refold.store.builds.build import Build, by_id, find, kept, lock
from refold.store.builds.dead_letters import find as letters
from refold.store.builds.graph import by_depth
from refold.store.incidents import find as find_incidents
from refold.store.log.damage import look_again
from tests.support.histories import HALF, POISON, PRODUCERS, WORKERS, Event, History

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
            compiled = look[which % len(look)]
            done = apply_next_page(conn, compiled, limit) or load_step(conn, compiled, step=limit, bucket=800)
            if done is not None:
                history.check(compiled.build_id)


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
        compiled = look[self.which % len(look)]
        build = lock(conn, compiled.build_id)
        if build is not None and build.loaded and build.upstream_id == compiled.upstream_id:
            try:
                apply_page(conn, compiled, build, self.limit)
            except Exception as error:
                if not caused_by_event(error):
                    raise
                # As a worker does: whoever takes the page again looks for the culprit.
                history.let_go(self.worker, commit=False)


@dataclass(frozen=True)
class LetGo:
    worker: int
    commit: bool

    def __call__(self, history: History) -> None:
        history.let_go(self.worker, commit=self.commit)
        for build in kept(history.operator):
            history.check(build.build_id)


@dataclass(frozen=True)
class Retry:
    """Somebody tries dead letters again, for nothing: they fail as before, and nothing may change."""

    which: int

    def __call__(self, history: History) -> None:
        # It waits for pages in hand, which nobody else would end here.
        for worker in range(WORKERS):
            history.let_go(worker, commit=True)
        waiting = letters(history.operator, "d.state = 'waiting' AND b.state IN ('building', 'live')")
        for letter in waiting[self.which :: 5]:
            loaded = by_id(history.operator, letter.build_id).loaded
            answer = release(history.operator, history.compiler, letter).answer
            # A first load starts over, and finds it again.
            assert answer == ("failed" if loaded else "released")
            history.check(letter.build_id)


@dataclass(frozen=True)
class Tamper:
    """Somebody takes rows out of a live table, or empties a column; its readers go on meanwhile; an audit heals."""

    which: int
    column: int | None
    half: int
    limit: int
    depth: Depth

    def __call__(self, history: History) -> None:
        # It waits for pages in hand, which nobody else would end here.
        for worker in range(WORKERS):
            history.let_go(worker, commit=True)
        live = by_depth(history.operator, find(history.operator, "b.state = 'live'"))
        read = {one.upstream_id for one in live}
        # Streams as often as all others together.
        streams = [one for one in live if one.build_id in read]
        build = (streams if self.which % 2 else live)[self.which // 2 % len(streams if self.which % 2 else live)]
        compiled = history.compiler.of(history.operator, build)
        apply_next_page(history.operator, compiled, self.limit)
        relation = compiled.statements.relations[0]
        some = f"{relation.row_hash()} & 1 = {self.half}"
        columns = [name for name in relation.columns if name not in {*relation.key, "txid", "position", "ordinal"}]
        if self.column is None or not columns:
            history.operator.execute(f"DELETE FROM {relation.table} WHERE {some}".encode())
        else:
            emptied = ident(columns[self.column % len(columns)])
            history.operator.execute(f"UPDATE {relation.table} SET {emptied} = NULL WHERE {some}".encode())
        readers = {one.projection: one for one in live if one.upstream_id == build.build_id}
        for reader in readers.values():
            apply_next_page(history.operator, history.compiler.of(history.operator, reader), self.limit)
        report = reconcile(history.operator, history.compiler, [build.projection], depth=self.depth)
        assert report.skipped == []
        # Its readers have been healed with it; of those that only count their reads an audit has to prove it.
        again = (
            reconcile(history.operator, history.compiler, list(readers), depth="slice")
            if readers
            else ReconcileReport()
        )
        assert (again.skipped, again.drift) == ([], 0)
        for told in again.checksums:
            statements = history.compiler.of(history.operator, readers[told.projection]).statements
            assert told.read and not statements.reads_by_slice, told
        for one in live:
            history.check(one.build_id)


@dataclass(frozen=True)
class Harm:
    """Somebody takes an event out of the log, or changes it; no audit heals from that; then it is put back."""

    which: int
    changed: bool
    depth: Depth

    def __call__(self, history: History) -> None:
        # An audit that heals waits for pages in hand, which nobody else would end here.
        for worker in range(WORKERS):
            history.let_go(worker, commit=True)
        known = sorted(history.committed)
        if not known:
            return
        conn, event_id = history.operator, known[self.which % len(known)]
        before = self._content(history)
        row = conn.execute("SELECT e::text FROM refold.events AS e WHERE event_id = %s", (event_id,)).fetchone()
        assert row is not None
        if self.changed:
            self._by_hand(history, "UPDATE refold.events SET action = 'forged' WHERE event_id = %s", event_id)
        else:
            self._by_hand(history, "DELETE FROM refold.events WHERE event_id = %s", event_id)
        reconcile(conn, history.compiler, depth=self.depth)
        assert self._content(history) == before
        if self.changed:
            self._by_hand(history, "DELETE FROM refold.events WHERE event_id = %s", event_id)
        self._by_hand(history, "INSERT INTO refold.events SELECT (e).* FROM (SELECT %s::refold.events) AS t (e)", *row)
        look_again(conn, by="the test")
        report = reconcile(conn, history.compiler, depth="deep")
        assert (report.drift, report.unhealed) == (0, [])
        assert find_incidents(conn, "i.kind IN ('drift', 'log_damage') AND i.resolved_at IS NULL") == []
        for one in find(conn, "b.state = 'live'"):
            history.check(one.build_id)

    @staticmethod
    def _by_hand(history: History, statement: LiteralString, *parameters: object) -> None:
        with history.operator.transaction():
            history.operator.execute("SET LOCAL ROLE NONE")
            history.operator.execute("SET LOCAL refold.restoring = on")
            assert history.operator.execute(statement, parameters).rowcount == 1

    @staticmethod
    def _content(history: History) -> list[object]:
        return [
            history.operator.execute(f"SELECT t::text FROM {relation.table} AS t ORDER BY 1".encode()).fetchall()
            for build in find(history.operator, "b.state = 'live'")
            for relation in history.compiler.of(history.operator, build).statements.relations
        ]


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
        key_indexes(history.operator, history.compiler)

    @staticmethod
    def _definition(history: History, build: Build) -> Definition:
        compiled = history.compiler.of(history.operator, build)
        return Definition(
            build.projection, None, build.definition, compiled.plan, build.fingerprint, compiled.transform
        )


@dataclass(frozen=True)
class Promote:
    """Whatever is ready goes live; with `finish`, first loads end and pages are applied."""

    finish: bool

    def __call__(self, history: History) -> None:
        for worker in range(WORKERS):
            history.let_go(worker, commit=True)
        runner = StepRunner(history.operator, history.compiler)
        if self.finish:
            for build in by_depth(history.operator, find(history.operator, "b.state = 'building'")):
                compiled = history.compiler.of(history.operator, build)
                while load_step(history.operator, compiled, step=50, bucket=100_000):
                    history.check(build.build_id)
                apply_next_page(history.operator, compiled, 7)
        for build in runner.promote_ready():
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
    n=st.sampled_from([None, None, "1.0", "1.00", "2.5", "7", "-3", POISON, HALF]),
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
    st.builds(Retry, which=st.integers(0, 4)),
    st.builds(
        Tamper,
        which=which,
        column=st.none() | st.integers(0, 5),
        half=st.integers(0, 1),
        limit=st.integers(1, 20),
        depth=st.sampled_from(["slice", "deep"]),
    ),
    st.builds(Harm, which=which, changed=st.booleans(), depth=st.sampled_from(["slice", "deep"])),
    st.builds(LetGo, worker=workers, commit=st.booleans()),
    st.builds(Rebuild, which=st.lists(which, min_size=1, max_size=3).map(tuple), cascade=st.booleans()),
    st.builds(Promote, finish=st.booleans()),
)
scripts = st.lists(steps, min_size=20, max_size=60)
