"""The one law: whatever happens, every table equals its query over what its cursor says was applied."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import psycopg
import pytest
from hypothesis import Phase, given, settings
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from refold.store.builds.build import kept
from refold.store.builds.dead_letters import find as letters
from tests.conftest import ServerUnderTest
from tests.support import steps
from tests.support.histories import FAILING, TOGETHER, History, left_out_together, poisoned
from tests.support.law import database, wrong_metrics
from tests.support.steps import Step

FOLD = Path(__file__).parents[1] / "sql" / "functions" / "window_funnel_fold.sql"


def soon_folded(url: str) -> None:
    """Lets funnels keep three events as they are instead of 32: histories have few events, and some of them late."""
    function = FOLD.read_text(encoding="utf-8")
    assert function.count("DEFAULT 32") == 1
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(function.replace("DEFAULT 32", "DEFAULT 3").encode())


@pytest.fixture(scope="module")
def clone(server: ServerUnderTest) -> Iterator[Callable[[], str]]:
    """Makes a database in which the law's project is live and the log is empty; drops all of them at the end."""
    with (
        database(server, segment_size=100, segments=4) as template,
        psycopg.connect(server.url_of(server.maintenance_dbname), autocommit=True) as admin,
    ):
        soon_folded(template)
        names = (f"{conninfo_to_dict(template)['dbname']}_{number}" for number in count())
        made: list[str] = []

        def drop() -> None:
            while made:
                admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(made.pop())))

        def make() -> str:
            drop()
            made.append(next(names))
            clone = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                sql.Identifier(made[0]), sql.Identifier(str(conninfo_to_dict(template)["dbname"]))
            )
            admin.execute(clone)
            return server.url_of(made[0])

        yield make
        drop()


@pytest.mark.timeout(3600)
@given(script=steps.scripts)
# A history takes some seconds. Without Phase.shrink: that takes minutes; what fails is printed, and is short enough to
# read.
@settings(
    max_examples=max(settings().max_examples // 20, 2),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    report_multiple_bugs=False,
)
def test_the_law_holds_at_every_step(clone: Callable[[], str], script: list[Step]) -> None:
    url = clone()
    with closing(History(url)) as history:
        for step in script:
            step(history)
        history.drain(limit=7)
        together: set[str] = set()
        for build in kept(history.operator):
            history.check(build.build_id)
            # Those are released that damage had caused, which was healed.
            found = letters(history.operator, "d.build_id = %s AND d.state <> 'released'", build.build_id)
            waiting = {letter.event_id for letter in found}
            if build.projection == TOGETHER:
                assert left_out_together(history.committed.values(), waiting)
                together = waiting
            else:
                assert waiting == poisoned(build.projection, history.committed.values())
        acknowledged = history.committed
    left_out = {name: poisoned(name, acknowledged.values()) for name in FAILING} | {TOGETHER: together}
    assert wrong_metrics(url, left_out=left_out) == {}
    with psycopg.connect(url) as conn:
        stored = conn.execute("SELECT event_id FROM refold.events").fetchall()
        assert sorted(event_id for (event_id,) in stored) == sorted(acknowledged)
