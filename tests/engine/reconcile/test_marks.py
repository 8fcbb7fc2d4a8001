"""A deep audit's mark is moved by whose step it is: who was taken for lost neither skips a step nor repeats one."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from refold import Log
from refold.engine.reconcile import deep
from refold.store.builds.build import live
from refold.store.builds.compiled import Compiler
from tests.support.law import worker_connection
from tests.support.live import SHOP, drain, make_live
from tests.support.making import events

Connection = psycopg.Connection[Any]


@pytest.mark.live("shop")
def test_an_abandoned_step_leaves_the_mark_alone(database_url: str) -> None:
    make_live(database_url)
    with worker_connection(database_url) as lost, worker_connection(database_url) as other:
        build = live(lost, "daily")
        assert build is not None
        stale = deep.begin(lost, build.build_id, None, rolling=True)
        assert stale is not None
        first = deep.advance(other, stale, (None, 10))
        assert first is not None
        second = deep.advance(other, first, (11, 20))
        assert second is not None
        # Back from wherever it was, after its step and before its next.
        assert deep.advance(lost, stale, (None, 10)) is None
        assert deep.touch(lost, stale) is None
        assert deep.begin(lost, build.build_id, stale, rolling=True) is None
        assert deep.begin(lost, build.build_id, None, rolling=True) is None
        assert deep.find_mark(other, build.build_id, rolling=True) == second
        last = deep.advance(other, second, (21, None))
        assert last is not None and last.finished_at is not None
        assert deep.advance(lost, second, (21, None)) is None
        assert deep.find_mark(other, build.build_id, rolling=True) == last


@pytest.mark.live("shop")
def test_two_at_the_same_audit(database_url: str) -> None:
    make_live(database_url)
    with Log(database_url) as log:
        log.append(events(24 * 30))
    drain(database_url)
    with worker_connection(database_url) as one, worker_connection(database_url) as other:
        build = live(one, "daily")
        assert build is not None
        compiled = Compiler(SHOP).of(one, build)
        slow = deep.steps(one, compiled, resume=True)
        begun = [next(slow)]
        quick = list(deep.steps(other, compiled, resume=True))
        done = deep.find_mark(other, build.build_id, rolling=False)
        assert done is not None and done.finished_at is not None
        assert begun + list(slow) == quick, "both looked at everything"
        assert deep.find_mark(other, build.build_id, rolling=False) == done
