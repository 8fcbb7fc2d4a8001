"""Everything at once, as Hypothesis draws it: append, duplicate, late, kill, restart, rebuild, tamper, reconcile.

The server's own processes are killed and the server restarted, so it is not the one of the other tests.
REFOLD_TEST_SEED repeats a run.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path
from random import Random, SystemRandom
from typing import ClassVar

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from psycopg import sql

from refold import Log, SourceEvent
from refold.embedded import EmbeddedServer
from refold.engine.apply.page import apply_page
from refold.engine.apply.step import StepRunner
from refold.engine.deployment.create import make_builds, new_deployment
from refold.engine.deployment.key_indexes import key_indexes
from refold.engine.reconcile import reconcile
from refold.model.event.source_event import Answer
from refold.model.projection.definition import Definition
from refold.postgres.connect import connect
from refold.service.worker.loop import Worker
from refold.store.builds.build import Build, find, lock
from refold.store.builds.compiled import Compiler
from refold.store.builds.graph import by_depth
from refold.store.schema.migrate import migrate
from tests.conftest import SERVER_SETTINGS
from tests.support.law import MONDAY, broken
from tests.support.live import SHOP, make_live, wrong
from tests.support.waiting import wait_until

TEMPLATE = "refold_everything"

numbers = st.integers(0, 200)
which = st.integers(0, 13)
turns = st.lists(which, min_size=3, max_size=12)


class Everything(RuleBasedStateMachine):
    """One database in which the shop is live, and all that can happen to it."""

    server: ClassVar[EmbeddedServer]
    names: ClassVar[Iterator[int]] = count()

    def __init__(self) -> None:
        super().__init__()
        self.committed: dict[str, SourceEvent] = {}
        self.tampered = False
        self.compiler = Compiler(SHOP)
        self.name = f"{TEMPLATE}_{next(self.names)}"
        # By file_copy: a clone by wal_log takes over that values of sequences are in the WAL, where they are not, and
        # after a crash they are handed out again.
        clone = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
        with psycopg.connect(self.server.url, autocommit=True) as admin:
            admin.execute(clone.format(sql.Identifier(self.name), sql.Identifier(TEMPLATE)))
        self.connect()

    @property
    def url(self) -> str:
        return self.server.url_of(self.name)

    def connect(self) -> None:
        """A worker's connection; the server may be on its way back."""
        opened: list[psycopg.Connection] = []

        def works() -> bool:
            try:
                opened.append(connect(self.url, "refold_worker", autocommit=True))
            except psycopg.OperationalError:
                return False
            return True

        wait_until(works, 30.0)
        self.conn = opened[0]

    @initialize(batch=st.integers(5, 30))
    def begin(self, batch: int) -> None:
        self.offer([event(number, 0) for number in range(batch)])

    @rule(chosen=st.lists(numbers, min_size=1, max_size=6), content=st.integers(0, 2), turns=turns)
    def append(self, chosen: list[int], content: int, turns: list[int]) -> None:
        """New ids, known ids with the same content, known ids with other content; and workers go on."""
        self.offer([event(number, content) for number in chosen])
        self.work(turns)

    @rule(seed=st.integers(0, 999))
    def duplicate(self, seed: int) -> None:
        known = list(self.committed.values())
        Random(seed).shuffle(known)
        self.offer(known)

    @rule(number=numbers, days=st.integers(-2000, 700), turns=turns)
    def late(self, number: int, days: int, turns: list[int]) -> None:
        self.offer([event(1000 + number, 0, days)])
        self.work(turns)

    def offer(self, events: list[SourceEvent]) -> None:
        with Log(self.url) as log:
            receipts = log.append(events)
        for one, receipt in zip(events, receipts, strict=True):
            before = self.committed.setdefault(one.id, one)
            if receipt.answer is not Answer.accepted:
                assert receipt.answer is (Answer.duplicate if before == one else Answer.conflict)
        accepted = sum(receipt.answer is Answer.accepted for receipt in receipts)
        self.accepted = getattr(self, "accepted", 0) + accepted
        assert self.accepted == len(self.committed)

    def work(self, turns: list[int]) -> None:
        """Pages, and steps of first loads."""
        compiled = StepRunner(self.conn, self.compiler)
        builds = by_depth(self.conn, find(self.conn, "b.state IN ('building', 'live')"))
        for turn in turns:
            compiled.step(builds[turn % len(builds)])

    @rule(turn=which)
    def kill(self, turn: int) -> None:
        """The process that serves a worker dies with a page written and nothing committed; so does everybody's."""
        builds = by_depth(self.conn, find(self.conn, "b.state IN ('building', 'live') AND b.loaded"))
        compiled = self.compiler.of(self.conn, builds[turn % len(builds)])
        self.conn.execute("BEGIN")
        build = lock(self.conn, compiled.build_id)
        assert build is not None
        apply_page(self.conn, compiled, build, 5)
        os.kill(self.conn.info.backend_pid, signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            wait_until(lambda: self.conn.execute("SELECT false").fetchone() == (True,), 10.0)
        self.conn.close()
        self.connect()

    @rule()
    def restart(self) -> None:
        self.conn.close()
        self.server.stop(immediate=True)
        type(self).server = EmbeddedServer.start(self.server.directory, SERVER_SETTINGS)
        self.connect()

    @rule(chosen=which, cascade=st.booleans())
    def rebuild(self, chosen: int, cascade: bool) -> None:
        """New builds beside the live ones, for the workers to load."""
        live = by_depth(self.conn, find(self.conn, "b.state = 'live'"))
        ids = {live[chosen % len(live)].build_id}
        for build in live:
            if cascade and build.upstream_id in ids:
                ids.add(build.build_id)
        with self.conn.transaction():
            deployment = new_deployment(self.conn, "rebuild", promote=True)
            definitions = [self.definition(build) for build in live if build.build_id in ids]
            make_builds(self.conn, definitions, deployment, resumed={})
        key_indexes(self.conn, self.compiler)

    def definition(self, build: Build) -> Definition:
        compiled = self.compiler.of(self.conn, build)
        return Definition(
            build.projection, None, build.definition, compiled.plan, build.fingerprint, compiled.transform
        )

    @rule()
    def promote(self) -> None:
        StepRunner(self.conn, self.compiler).promote_ready()

    @rule(chosen=which, how=st.sampled_from(["DELETE", "UPDATE", "TRUNCATE"]), salt=st.integers(0, 999))
    def tamper(self, chosen: int, how: str, salt: int) -> None:
        builds = find(self.conn, "b.state = 'live'")
        table = sql.Identifier("refold_builds", builds[chosen % len(builds)].table_name)
        some = sql.SQL("WHERE ctid IN (SELECT ctid FROM {t} AS t ORDER BY hashtextextended(t::text, {s}) LIMIT 2)")
        rows = some.format(t=table, s=sql.Literal(salt))
        with psycopg.connect(self.url, autocommit=True) as admin:
            if how == "UPDATE":
                column = sql.Identifier(self.changeable(admin, builds[chosen % len(builds)].table_name))
                admin.execute(sql.SQL("UPDATE {t} SET {c} = NULL ").format(t=table, c=column) + rows)
            elif how == "DELETE":
                admin.execute(sql.SQL("DELETE FROM {t} ").format(t=table) + rows)
            else:
                admin.execute(sql.SQL("TRUNCATE {t}").format(t=table))
        self.tampered = True

    @staticmethod
    def changeable(admin: psycopg.Connection, table: str) -> str:
        """The last column, which no table of the shop has in its key."""
        row = admin.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = ('refold_builds.' || quote_ident(%s))::regclass"
            " AND attnum > 0 AND NOT attisdropped AND NOT attnotnull ORDER BY attnum DESC LIMIT 1",
            (table,),
        ).fetchone()
        assert row is not None
        return str(row[0])

    @precondition(lambda self: self.tampered)
    @rule()
    def reconcile(self) -> None:
        report = reconcile(self.conn, SHOP)
        assert report.skipped == []
        self.tampered = False
        for build in find(self.conn, "b.state = 'live'"):
            assert broken(self.conn, self.compiler, build.build_id) == []

    def teardown(self) -> None:
        try:
            Worker(self.url, SHOP).run(drain=True)
            if self.tampered:
                self.reconcile()
            assert wrong(self.url) == {}
            with psycopg.connect(self.url) as conn:
                stored = conn.execute("SELECT event_id FROM refold.events ORDER BY event_id").fetchall()
            assert [event_id for (event_id,) in stored] == sorted(self.committed)
        finally:
            self.conn.close()
            with psycopg.connect(self.server.url, autocommit=True) as admin:
                admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(self.name)))


def event(number: int, content: int, days: int = 0) -> SourceEvent:
    """The event of a number, in one of several contents."""
    return SourceEvent(
        id=f"e{number}",
        user_id=f"u{number % 7}",
        action=("view", "cart", "purchase")[(number + content) % 3],
        ts=MONDAY + timedelta(days=days, minutes=number * 7),
        metadata={"amount": (number * 37) % 200, "content": content},
    )


@pytest.fixture
def machine() -> Iterator[type[Everything]]:
    """The machine, on a server of its own."""
    directory = Path(tempfile.mkdtemp(prefix="refold-test-"))
    with EmbeddedServer.start(directory, SERVER_SETTINGS, delete=True) as server:
        Everything.server = server
        with psycopg.connect(server.url, autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
        migrate(server.url_of(TEMPLATE))
        make_live(server.url_of(TEMPLATE))
        yield Everything


@pytest.mark.exhaustive
def test_everything_at_once(machine: type[Everything]) -> None:
    number = int(os.environ.get("REFOLD_TEST_SEED", SystemRandom().randrange(10**9)))
    print(f"REFOLD_TEST_SEED={number}")
    run_state_machine_as_test(
        seed(number)(machine),
        settings=settings(
            max_examples=6,
            stateful_step_count=30,
            deadline=None,
            # Without Phase.shrink: that takes minutes; what fails is printed.
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=[HealthCheck.too_slow],
            report_multiple_bugs=False,
        ),
    )
