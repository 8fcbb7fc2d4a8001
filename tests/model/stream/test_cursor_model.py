"""The rules of refold.cursor against a model of Postgres, in random histories; and broken on purpose.

The model knows transactions (txids handed out late, commits and aborts in any order, prepared ones,
commits that are not flushed yet), snapshots, row locks and server crashes that hand txids out again.
Producers append to the log, workers read it and each other:

    log -> A1, A2 (a list of rows for each event) -> B1, B2 (lists again) -> C

where the readers of A and of B are switched between the two builds at random, and the build that
is not live may start again from nothing. After every commit the one law is checked: a build holds
the rows for exactly what its cursor says was applied, once, and never goes backwards. At the end
everything committed must have arrived everywhere. A history is a function of its seed.
"""

from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from random import Random

import pytest

from refold.model.stream.cursor import EMPTY, LAST_ORDINAL, Cursor, Key, Read, Snapshot, advance, next_read

# ---------------------------------------------------------------- the graph


def a_rows(event: Key) -> list[Key]:
    """Nothing for some events, up to three rows for others: a filter and a list in one."""
    return [Key(event.txid, event.position, n) for n in range(event.position % 4)]


def b_rows(row: Key) -> list[Key]:
    """One or two rows; their ordinals do not follow those of the input."""
    return [row._replace(ordinal=n) for n in ((2,), (1, 3), (0,))[row.ordinal]]


def c_rows(row: Key) -> list[Key]:
    return [row]


TRANSFORM: dict[str, Callable[[Key], list[Key]]] = {"A": a_rows, "B": b_rows, "C": c_rows}
BUILDS = ("A1", "A2", "B1", "B2", "C1")
UPSTREAM = {"B": "A", "C": "B"}


@dataclass(frozen=True)
class Build:
    """The row of a build, its table, and a rollup that is folded as *old value + page*."""

    cursor: Cursor
    rows: frozenset[Key] = frozenset()
    count: int = 0


@dataclass(frozen=True)
class Database:
    """All committed data at one moment; never changed, so that a snapshot is just a reference."""

    log: frozenset[Key]
    builds: dict[str, Build]
    live: dict[str, str]

    def upstream(self, build: str) -> Build:
        return self.builds[self.live[UPSTREAM[build[0]]]]

    def stream(self, build: str) -> frozenset[Key]:
        """All rows that the upstream of `build` has or will have, for what is committed by now."""
        name = UPSTREAM.get(build[0])
        return self.log if name is None else query(name, self.log)


@lru_cache(maxsize=64)
def query(name: str, log: frozenset[Key]) -> frozenset[Key]:
    """The projection evaluated over the whole log."""
    stream = query(UPSTREAM[name], log) if name in UPSTREAM else log
    return frozenset(out for row in stream for out in TRANSFORM[name](row))


# ---------------------------------------------------------------- Postgres


@dataclass(eq=False)
class Tx:
    """A transaction, with the changes that only it can see yet."""

    xid: int = 0
    prepared: bool = False
    events: list[Key] = field(default_factory=list)
    builds: dict[str, Build] = field(default_factory=dict)
    live: dict[str, str] = field(default_factory=dict)

    def over(self, base: Database) -> Database:
        return Database(base.log.union(self.events), base.builds | self.builds, base.live | self.live)


class Postgres:
    """What the rules depend on: txids, snapshots, locks, and what survives a crash."""

    def __init__(self, start: Database) -> None:
        self.next_xid = 3
        self.latest_completed = 2
        self.running: list[Tx] = []
        self.locks: dict[str, Tx] = {}
        self.wal: list[int] = []  # the xid of each record
        self.flushed = 0
        self.commits = [(0, start)]  # with the length of the WAL that includes the commit
        self.position = 0

    @property
    def now(self) -> Database:
        return self.commits[-1][1]

    def assign(self, tx: Tx) -> None:
        if not tx.xid:
            tx.xid, self.next_xid = self.next_xid, self.next_xid + 1
            self.running.append(tx)

    def write(self, tx: Tx) -> None:
        self.assign(tx)
        self.wal.append(tx.xid)

    def append(self, tx: Tx, position: int) -> None:
        self.write(tx)
        tx.events.append(Key(tx.xid, position, 0))

    def look(self, tx: Tx) -> tuple[Database, Snapshot]:
        """The snapshot of one statement: its data, and pg_current_snapshot()."""
        xmax = self.latest_completed + 1
        below = sorted(t.xid for t in self.running if t.xid < xmax)
        # As GetSnapshotData does it: one's own txid counts for xmin but is not listed in xip.
        xip = tuple(x for x in below if x != tx.xid)
        return tx.over(self.now), Snapshot(below[0] if below else xmax, xmax, xip)

    def _end(self, tx: Tx) -> None:
        self.locks = {build: holder for build, holder in self.locks.items() if holder is not tx}
        if tx.xid:
            self.running.remove(tx)
            self.latest_completed = max(self.latest_completed, tx.xid)

    def commit(self, tx: Tx, *, flush: bool) -> None:
        if tx.xid:
            self.wal.append(tx.xid)
            self.commits.append((len(self.wal), tx.over(self.now)))
            if flush:
                self.flushed = len(self.wal)
        self._end(tx)

    def abort(self, tx: Tx, *, logged: bool = True) -> None:
        """Postgres logs (and does not flush) every abort; see Hazards.unlogged_abort."""
        if tx.xid and logged:
            self.wal.append(tx.xid)
        self._end(tx)

    def prepare(self, tx: Tx) -> None:
        self.write(tx)
        tx.prepared = True
        self.flushed = len(self.wal)

    def crash(self, kept: int) -> None:
        """Recover from the first `kept` records: txids above those they name are handed out again."""
        del self.wal[max(kept, self.flushed) :]
        self.flushed = len(self.wal)
        self.commits = [c for c in self.commits if c[0] <= self.flushed]
        self.running = [t for t in self.running if t.prepared]
        self.locks.clear()
        self.next_xid = max([2, *self.wal]) + 1
        self.latest_completed = self.next_xid - 1


# ---------------------------------------------------------------- the rules under test


def unread(rows: Collection[Key], read: Read, limit: int) -> list[Key]:
    """The page, as the worker's SQL selects it."""
    found = [
        key
        for key in rows
        if (key.txid in read.done.xip or key.txid >= read.done.xmax)
        and read.target.visible(key.txid)
        and not read.done.visible(key.txid)
        and (read.after is None or key > read.after)
        and (read.upto is None or key <= read.upto)
    ]
    return sorted(found)[:limit]


@dataclass(frozen=True)
class Rules:
    """How a worker goes about it. The defaults are right; a mutant replaces one or two."""

    cap: Callable[[Snapshot, int], Snapshot] = Snapshot.capped
    next_read: Callable[[Cursor, Cursor], Read | None] = next_read
    unread: Callable[[Collection[Key], Read, int], list[Key]] = unread
    advance: Callable[[Cursor, Read, Key | None, bool], Cursor] = advance
    applied: Callable[[Cursor, Key], bool] = Cursor.applied
    look_before_lock: bool = False  # both in one statement: the newest build beside an older snapshot
    cursor_after_rows: bool = False


@dataclass(frozen=True)
class Hazards:
    """What may happen in a history."""

    crash: bool = True
    switch: bool = True
    append_in_worker: bool = True
    # Not Postgres: it logs the end of every transaction that has a txid before a snapshot can show
    # the end, hence before the commit of a cursor that speaks of it. The rules do not rely on that.
    unlogged_abort: bool = True


class ViolationError(AssertionError):
    """The law does not hold."""


class History:
    """One random history; `run` raises ViolationError when the rules break the law."""

    def __init__(self, seed: int, rules: Rules, hazards: Hazards) -> None:
        self.random = Random(seed)
        self.rules = rules
        self.hazards = hazards
        builds = {name: Build(Cursor(EMPTY)) for name in BUILDS}
        self.pg = Postgres(Database(frozenset(), builds, {"A": "A1", "B": "B1"}))
        self.producers: list[Tx] = []
        self.workers: list[Generator[None]] = []
        self.reserved: list[int] = []
        self.turns = list(BUILDS)

    def run(self) -> None:
        actions: list[tuple[int, Callable[[], None]]] = [
            (10, self.produce),
            (10, self.work),
            (3, self.fail),
            (2, self.neglect),
        ]
        if self.hazards.switch:
            actions += [(2, self.switch), (1, self.restart)]
        if self.hazards.crash:
            actions += [(1, self.crash)]
        if self.random.random() < 0.3:
            self.backlog()
        chosen = [action for weight, action in actions for _ in range(weight)]
        for _ in range(self.random.randrange(20, 100)):
            self.random.choice(chosen)()
        self.settle()

    # ------------------------------------------------------------ producers

    def draw_position(self) -> int:
        """A number from the sequence, sometimes one drawn earlier and held back."""
        self.pg.position += 1
        if self.random.random() < 0.3:
            self.reserved.append(self.pg.position)
            self.pg.position += 1
        if self.reserved and self.random.random() < 0.3:
            return self.reserved.pop(0)
        return self.pg.position

    def backlog(self) -> None:
        """Events from before the first build: without them most runs are a page long."""
        for _ in range(self.random.randrange(6)):
            tx = Tx()
            self.pg.append(tx, self.draw_position())
            self.pg.append(tx, self.draw_position())
            self.pg.commit(tx, flush=True)

    def produce(self) -> None:
        if not self.producers or (len(self.producers) < 4 and self.random.random() < 0.4):
            self.producers.append(Tx())
        tx = self.random.choice(self.producers)
        step = self.random.randrange(10)
        if tx.prepared:
            if step < 3:
                self.end_producer(tx, commit=step > 0)
        elif step < 2:
            self.pg.assign(tx)
        elif step < 5 and len(tx.events) < 4:
            self.pg.append(tx, self.draw_position())
        elif step < 6 and tx.events:
            self.pg.prepare(tx)
        else:
            self.end_producer(tx, commit=step > 6)

    def end_producer(self, tx: Tx, commit: bool) -> None:
        self.producers.remove(tx)
        if commit:
            self.pg.commit(tx, flush=self.random.random() < 0.8)
            if tx.events:
                self.check(BUILDS)
        else:
            self.abort(tx)

    def fail(self) -> None:
        """An append that took a txid and was refused."""
        tx = Tx()
        self.pg.assign(tx)
        self.abort(tx)

    def abort(self, tx: Tx) -> None:
        self.pg.abort(tx, logged=not self.hazards.unlogged_abort or tx.xid in self.pg.wal)

    # ------------------------------------------------------------ workers

    def work(self) -> None:
        if not self.workers or (len(self.workers) < 3 and self.random.random() < 0.3):
            self.workers.append(self.worker())
        worker = self.random.choice(self.workers)
        for _ in range(self.random.choice((1, 1, 20))):
            if next(worker, worker) is worker:
                self.workers.remove(worker)
                return

    def neglect(self) -> None:
        """Leave some builds alone for a while, so that they fall behind their twins in mid-run."""
        self.turns = self.random.sample(BUILDS, k=self.random.randint(2, 5))

    def worker(self) -> Generator[None]:
        """One transaction, a step between two yields: usually one page of one build."""
        tx = Tx()
        if self.random.random() < 0.2:
            self.pg.assign(tx)
            yield
        for _ in range(self.random.choice((1, 1, 1, 2, 3))):
            if self.hazards.append_in_worker and self.random.random() < 0.2:
                self.pg.append(tx, self.draw_position())
                yield
            yield from self.page(tx, self.random.choice(self.turns), self.random.randint(1, 3))
        if self.random.random() < 0.15:
            self.abort(tx)
        else:
            self.commit_worker(tx)

    def page(self, tx: Tx, name: str, limit: int) -> Iterator[None]:
        """Lock the build, then look: two statements."""
        data, snapshot = self.pg.look(tx)
        if self.rules.look_before_lock:
            yield
        if self.pg.locks.setdefault(name, tx) is not tx:
            return  # SKIP LOCKED
        self.pg.write(tx)
        build = tx.over(self.pg.now).builds[name]
        if not self.rules.look_before_lock:
            yield
            data, snapshot = self.pg.look(tx)
        if name[0] == "A":
            rows, upstream = data.log, Cursor(self.rules.cap(snapshot, tx.xid))
        else:
            rows, upstream = data.upstream(name).rows, data.upstream(name).cursor
            if self.rules.cursor_after_rows:
                yield
                upstream = self.pg.look(tx)[0].upstream(name).cursor
        read = self.rules.next_read(build.cursor, upstream)
        if read is None:
            return
        page = self.rules.unread(rows, read, limit)
        last = page[-1] if page else None
        if last is not None and name[0] == "A":
            last = last._replace(ordinal=LAST_ORDINAL)
        cursor = self.rules.advance(build.cursor, read, last, len(page) == limit)
        new = [out for row in page for out in TRANSFORM[name[0]](row)]
        if not build.rows.isdisjoint(new):
            raise ViolationError(f"{name} applies {sorted(build.rows.intersection(new))} twice")
        tx.builds[name] = Build(cursor, build.rows.union(new), data.builds[name].count + len(new))
        yield

    def commit_worker(self, tx: Tx) -> None:
        before = self.pg.now
        self.pg.commit(tx, flush=self.random.random() < 0.8)
        for name in tx.builds:
            old, new = before.builds[name].cursor, self.pg.now.builds[name].cursor
            for key in before.stream(name):
                if self.rules.applied(old, key) and not self.rules.applied(new, key):
                    raise ViolationError(f"{name} goes backwards over {key}: {old} -> {new}")
        self.check(BUILDS if tx.events else tx.builds)

    # ------------------------------------------------------------ operators and accidents

    def switch(self) -> None:
        """Promote when the other build covers the live one; roll back to one that is behind, too."""
        name = self.random.choice("AB")
        live = self.pg.now.live[name]
        other = name + ("2" if live.endswith("1") else "1")
        builds = self.pg.now.builds
        if builds[other].cursor.covers(builds[live].cursor):
            missing = builds[live].rows - builds[other].rows
            if missing:
                raise ViolationError(f"{other} covers {live} but lacks {sorted(missing)}")
        tx = Tx(live={name: other})
        self.pg.write(tx)
        self.pg.commit(tx, flush=True)

    def restart(self) -> None:
        """Start the build that is not live again from nothing."""
        name = self.random.choice("AB")
        other = name + ("2" if self.pg.now.live[name].endswith("1") else "1")
        if other not in self.pg.locks:
            tx = Tx(builds={other: Build(Cursor(EMPTY))})
            self.pg.write(tx)
            self.pg.commit(tx, flush=True)

    def crash(self) -> None:
        flushed, written = self.pg.flushed, len(self.pg.wal)
        self.pg.crash(self.random.choice((flushed, self.random.randint(flushed, written))))
        self.producers = [t for t in self.producers if t.prepared]
        self.workers.clear()
        self.check(BUILDS)

    # ------------------------------------------------------------ the law

    def check(self, names: Collection[str]) -> None:
        data = self.pg.now
        for name in names:
            build = data.builds[name]
            say = [key for key in data.stream(name) if self.rules.applied(build.cursor, key)]
            expected = {out for key in say for out in TRANSFORM[name[0]](key)}
            if build.rows != expected:
                raise ViolationError(f"{name} at {build.cursor} differs in {sorted(build.rows ^ expected)}")
            if build.count != len(expected):
                raise ViolationError(f"{name} counts {build.count} of {len(expected)}")

    def settle(self) -> None:
        """Let everybody finish: then everything committed must be applied everywhere."""
        for tx in list(self.producers):
            self.end_producer(tx, commit=self.random.random() < 0.8)
        for worker in self.workers:
            for _ in worker:
                pass
        self.hazards = replace(self.hazards, append_in_worker=False)
        goal = {name: query(name[0], self.pg.now.log) for name in BUILDS}
        for _ in range(20 + 2 * sum(map(len, goal.values()))):
            behind = [name for name in BUILDS if self.pg.now.builds[name].rows != goal[name]]
            if not behind:
                return
            for name in BUILDS:  # also those with all their rows: their cursors have yet to say so
                tx = Tx()
                for _ in self.page(tx, name, self.random.randint(1, 3)):
                    pass
                self.commit_worker(tx)
        raise ViolationError(f"{behind} never arrive")


def violations(rules: Rules, hazards: Hazards, histories: int) -> Iterator[str]:
    """How the law was broken, for each of so many histories that broke it."""
    for seed in range(histories):
        try:
            History(seed, rules, hazards).run()
        except ViolationError as violation:
            yield f"history {seed}: {violation}"


# ---------------------------------------------------------------- the rules hold

ANYTHING = Hazards()


@pytest.mark.parametrize("hundreds", range(20))
def test_the_law_holds_in_every_history(hundreds: int) -> None:
    for seed in range(100 * hundreds, 100 * hundreds + 100):
        History(seed, Rules(), ANYTHING).run()


# ---------------------------------------------------------------- and each is needed


def position_after(rows: Collection[Key], read: Read, limit: int) -> list[Key]:
    last = read.after.position if read.after else 0
    return sorted((k for k in rows if k.position > last), key=lambda k: (k.position, k.ordinal))[:limit]


POSITION_ONLY = Rules(
    next_read=lambda cursor, _: Read(EMPTY, EMPTY, cursor.progress, None),
    unread=position_after,
    advance=lambda cursor, _, last, __: Cursor(EMPTY, EMPTY, last or cursor.progress),
    applied=lambda cursor, key: cursor.progress is not None and key.position <= cursor.progress.position,
)


def own_added_to_xip(snapshot: Snapshot, own: int) -> Snapshot:
    if own >= snapshot.xmax:
        return snapshot
    return Snapshot(min(own, snapshot.xmin), snapshot.xmax, tuple(sorted({*snapshot.xip, own})))


def end_when_short(cursor: Cursor, read: Read, last: Key | None, full: bool) -> Cursor:
    return advance(cursor, read, last, full) if full else Cursor(read.target)


def any_new_target(cursor: Cursor, upstream: Cursor) -> Read | None:
    if cursor.target is None and upstream.done != cursor.done:
        return Read(cursor.done, upstream.done, None, None)
    return next_read(cursor, upstream)


def read_on_regardless(cursor: Cursor, upstream: Cursor) -> Read | None:
    if cursor.target is not None and upstream.target != cursor.target:
        return Read(cursor.done, cursor.target, cursor.progress, None)
    return next_read(cursor, upstream)


def one_row_is_an_event(cursor: Cursor, read: Read, last: Key | None, full: bool) -> Cursor:
    return advance(cursor, read, last and last._replace(ordinal=LAST_ORDINAL), full)


def bound_inside_an_event(cursor: Cursor, upstream: Cursor) -> Read | None:
    read = next_read(cursor, upstream)
    if upstream.target is not None and upstream.progress is not None and read is not None and read.upto:
        return replace(read, upto=upstream.progress)
    return read


def leap_to_the_bound(cursor: Cursor, read: Read, last: Key | None, full: bool) -> Cursor:
    return Cursor(cursor.done, read.target, read.upto) if read.upto else advance(cursor, read, last, full)


QUIET = Hazards(crash=False, switch=False, append_in_worker=False, unlogged_abort=False)

# With the number of histories in which each must be found: three times what it takes, or more.
MUTANTS = [
    pytest.param(POSITION_ONLY, QUIET, 20, id="the cursor is the last position"),
    # The cursor survives this one; the old value under the rollup does not (see below).
    pytest.param(Rules(look_before_lock=True), QUIET, 200, id="lock and look in one statement"),
    pytest.param(
        Rules(cap=lambda snapshot, _: snapshot),
        replace(QUIET, append_in_worker=True),
        300,
        id="one's own txid in the target",
    ),
    pytest.param(Rules(cap=own_added_to_xip), ANYTHING, 1500, id="txids above one's own in the target"),
    pytest.param(Rules(advance=end_when_short), QUIET, 20, id="a bounded page ends the run"),
    pytest.param(Rules(advance=leap_to_the_bound), QUIET, 20, id="a full page counts up to its bound"),
    pytest.param(Rules(next_read=any_new_target), ANYTHING, 300, id="a target that is no superset"),
    pytest.param(Rules(next_read=read_on_regardless), ANYTHING, 200, id="reading on without the upstream"),
    pytest.param(Rules(advance=one_row_is_an_event), QUIET, 20, id="LIMIT inside a tie without the ordinal"),
    pytest.param(Rules(next_read=bound_inside_an_event), QUIET, 100, id="a bound inside a tie"),
    pytest.param(Rules(cursor_after_rows=True), QUIET, 200, id="the upstream's cursor after its rows"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("rules", "hazards", "histories"), MUTANTS)
def test_a_broken_rule_is_found(rules: Rules, hazards: Hazards, histories: int) -> None:
    assert next(violations(rules, hazards, histories), None) is not None


@pytest.mark.slow
def test_the_superset_test_is_what_keeps_the_cursor_of_a_stale_look() -> None:
    """Lock and look in one statement: with the test only old values are wrong, without it cursors too."""
    stale = Rules(look_before_lock=True)
    assert all(" counts " in text for text in violations(stale, QUIET, 200))
    worse = replace(stale, next_read=any_new_target)
    assert any(" goes backwards " in text for text in violations(worse, QUIET, 500))


@pytest.mark.slow
def test_the_cap_is_what_makes_unlogged_aborts_harmless() -> None:
    """On a server that logs each abort, as Postgres does, the weaker rule holds through crashes too."""
    logged = replace(ANYTHING, unlogged_abort=False)
    assert next(violations(Rules(cap=own_added_to_xip), logged, 300), None) is None
