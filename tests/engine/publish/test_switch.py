"""A switch and the pages that are applied while it takes its locks."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from refold.engine.apply.step import StepRunner
from refold.engine.deployment.deploy import rebuild
from refold.engine.publish import switch as promotion
from refold.engine.publish.switch import NotYet, promote
from refold.store.builds.build import Build, find, live_builds
from refold.store.builds.build import lock as build_lock
from refold.store.builds.compiled import Compiler
from tests.support.law import worker_connection
from tests.support.scratch import Scratch

Connection = psycopg.Connection[tuple[Any, ...]]


def test_a_switch_covers_what_moves_on_while_it_takes_its_locks(
    scratch: Scratch, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its transaction id with the first lock; a build paged after that was beyond its reach, every time."""
    scratch.append(3)
    scratch.deploy(
        a="SELECT action, count(*) AS n FROM events GROUP BY action",
        b="SELECT action, count(*) AS n, 1 AS one FROM events GROUP BY action, one",
    )
    rebuild(scratch.worker, scratch.folder, ["a", "b"], lambda progress: None, promote=False)
    deployment = scratch.build("a").deployment
    compiler = Compiler(None)
    lock = build_lock
    locked: list[int] = []
    with worker_connection(database_url) as other:

        def and_another_page(conn: Connection, build_id: int, *, wait: bool = False) -> Build | None:
            build = lock(conn, build_id, wait=wait)
            if not locked:
                scratch.append()
                for one in find(other, "b.state = 'live'"):
                    StepRunner(other, compiler).step(one)
            locked.append(build_id)
            return build

        monkeypatch.setattr(promotion, "lock", and_another_page)
        runner = StepRunner(scratch.worker, compiler)
        assert len(promote(scratch.worker, deployment, compiler, runner.catch_up)) == 2
    scratch.append()
    scratch.drain()
    assert scratch.rows("a") == [("a", 5)]
    assert scratch.rows("b") == [("a", 5, 1)]


def test_a_switch_that_another_has_made_between_two_looks_is_left_to_it(
    scratch: Scratch, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build that it is about to make live would count as its own predecessor, and be retired."""
    scratch.append(3)
    scratch.deploy(a="SELECT action, count(*) AS n FROM events GROUP BY action")
    rebuild(scratch.worker, scratch.folder, ["a"], lambda progress: None, promote=False)
    candidate = scratch.build("a")
    compiler = Compiler(None)
    look = live_builds
    with worker_connection(database_url) as other:

        def and_another_switch(conn: Connection) -> list[Build]:
            monkeypatch.setattr(promotion, "live_builds", look)
            assert promote(other, candidate.deployment, compiler, StepRunner(other, compiler).catch_up)
            return look(conn)

        monkeypatch.setattr(promotion, "live_builds", and_another_switch)
        runner = StepRunner(scratch.worker, compiler)
        with pytest.raises(NotYet):
            promote(scratch.worker, candidate.deployment, compiler, runner.catch_up)
        assert promote(scratch.worker, candidate.deployment, compiler, runner.catch_up) == []
    live = scratch.build("a")
    assert (live.build_id, live.state, live.retired_at) == (candidate.build_id, "live", None)
