"""The one law: whatever happens, every table equals its query over what its cursor says was applied."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count

import psycopg
import pytest
from hypothesis import Phase, given, settings
from psycopg import sql

import histories
from conftest import ServerUnderTest
from histories import History, Step
from law import deploy_project, wrong_metrics
from refold.builds.build import kept
from refold.database import migrate


@pytest.fixture(scope="module")
def clone(server: ServerUnderTest) -> Iterator[Callable[[], str]]:
    """Makes a database in which the law's project is live and the log is empty; drops all of them at the end."""
    admin = psycopg.connect(server.url_of(server.maintenance_dbname), autocommit=True)
    names = (f"refold_law_{os.getpid()}_{number}" for number in count())
    template = next(names)
    made = [template]
    admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(template)))
    url = server.url_of(template)
    migrate(url)
    with psycopg.connect(url) as conn:
        # Many small segments, all there from the start: making one takes a lock that ends with the transaction.
        conn.execute("UPDATE refold.settings SET segment_size = 40, segments_ahead = 10")
        conn.execute("SELECT refold.ensure_segments()")
    deploy_project(url)

    def make() -> str:
        name = next(names)
        if made[1:]:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(made.pop())))
        made.append(name)
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        return server.url_of(name)

    yield make
    for name in made:
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
    admin.close()


@given(script=histories.scripts)
# Without Phase.shrink: that takes minutes; what fails is printed, and is short enough to read.
@settings(max_examples=30, phases=[Phase.explicit, Phase.reuse, Phase.generate], report_multiple_bugs=False)
def test_the_law_holds_at_every_step(clone: Callable[[], str], script: list[Step]) -> None:
    url = clone()
    with closing(History(url)) as history:
        for step in script:
            step(history)
        history.drain(limit=7)
        for build in kept(history.operator):
            history.check(build.build_id)
        acknowledged = history.committed
    assert wrong_metrics(url) == {}
    with psycopg.connect(url) as conn:
        stored = conn.execute("SELECT event_id FROM refold.events").fetchall()
        assert sorted(event_id for (event_id,) in stored) == sorted(acknowledged)
