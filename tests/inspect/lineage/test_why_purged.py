"""Why a row has its numbers, when events behind it were purged: no event says more than the log knows."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg import sql

from refold.dashboard.pages.row import RowPage
from refold.errors import InputError
from refold.inspect.lineage.why import Answer, why
from refold.inspect.traces import look
from tests.engine.purge.conftest import PROJECT, Yard, yard  # noqa: F401
from tests.support.backfilling import command
from tests.support.purging import chill_all

# Slow: not beside the transactions of other tests on one server, which hold back what a purge may take.
pytestmark = [pytest.mark.live("archived"), pytest.mark.slow]

METRICS = ["by_user", "clicks", "daily", "everything", "paths", "seen", "tag_weights", "tagged"]
OF_EVENTS = {"clicks", "tagged"}
CHAINED = {"paths", "tag_weights"}


def rows_of(yard: Yard, metric: str) -> list[dict[str, Any]]:  # noqa: F811
    """The keys of all rows of a metric, as texts."""
    key = yard.compiler.of(yard.worker, yard.build(metric)).statements.relations[0].key
    columns = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in key)
    query = sql.SQL("SELECT {} FROM metrics.{}").format(columns, sql.Identifier(metric))
    return [dict(zip(key, row, strict=True)) for row in yard.admin.execute(query).fetchall()]


def page(answer: Answer) -> str:
    """The sentence of the dashboard's page."""

    class Asked:
        pass

    asked = Asked()
    asked.answer = answer  # type: ignore[attr-defined]
    return RowPage(None, None, {}, "", asked, 20).sentence  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("metric", METRICS)
def test_every_row_is_explained_as_far_as_the_log_goes(yard: Yard, metric: str) -> None:  # noqa: F811
    before = {str(key): why(yard.worker, yard.compiler, metric, key) for key in rows_of(yard, metric)}
    yard.purge()
    (floor,) = yard.admin.execute("SELECT refold.log_floor()").fetchone() or (0,)
    standing = 0
    for key in rows_of(yard, metric):
        answer = why(yard.worker, yard.compiler, metric, key)
        was = before[str(key)]
        assert answer.same and was.same, key
        assert [row.shown for row in answer.rows] == [row.shown for row in was.rows]
        assert answer.standing == (metric in OF_EVENTS and was.behind[0].position < floor)
        assert answer.purged == (metric not in OF_EVENTS | CHAINED)
        standing += answer.standing
        if answer.standing:
            assert (answer.events, answer.behind) == (0, ())
            assert "stands as it was made" in page(answer)
        elif metric in CHAINED:
            assert [one.row_id for one in answer.behind] == [one.row_id for one in was.behind]
            assert all((one.event_id is None) == one.purged == (one.position < floor) for one in answer.behind)
        else:
            assert all(one.event_id is not None and not one.purged for one in answer.behind)
        if answer.purged:
            # What a purged event may have done before is said of none.
            assert {did.how for one in answer.behind for did in one.did} <= {"gives"}
            assert answer.told == ()
            assert "the base of the metric" in page(answer)
    assert bool(standing) == (metric in OF_EVENTS)


@pytest.mark.parametrize("metric", ["by_user", "clicks", "daily", "tagged"])
def test_a_row_of_the_log_that_was_changed_is_found(yard: Yard, metric: str) -> None:  # noqa: F811
    yard.purge()
    table = sql.Identifier("refold_builds", yard.build(metric).table_name)
    changed = {
        "by_user": "events = events + 1",
        "daily": "events = events + 1",
        "clicks": "n = 99",
        "tagged": "tag = 'x'",
    }
    live = "" if metric not in OF_EVENTS else " WHERE position >= refold.log_floor()"
    yard.admin.execute(sql.SQL("UPDATE {} SET {}{}").format(table, sql.SQL(changed[metric]), sql.SQL(live)))
    found = [why(yard.worker, yard.compiler, metric, key) for key in rows_of(yard, metric)]
    assert {one.same for one in found if not one.standing} == {False}


def test_the_command_alarms_nobody(yard: Yard) -> None:  # noqa: F811
    yard.purge()
    folder = ("--projections", str(PROJECT))
    (purged,) = yard.admin.execute(
        "SELECT event_id FROM metrics.clicks ORDER BY length(event_id), 1 LIMIT 1"
    ).fetchone() or ("",)
    done = command(yard.url, "why", "clicks", f"event_id={purged}", *folder)
    assert done.returncode == 0, done.stdout
    assert "was purged from the log: the row stands as it was made" in done.stdout
    assert "COUNTED AGAIN" not in done.stdout and "Not the same" not in done.stdout
    done = command(yard.url, "why", "everything", "scope=all", *folder)
    assert "counted again from 40 events of the log and the metric's base" in done.stdout
    assert "attains" not in done.stdout and "adds" not in done.stdout


@pytest.mark.parametrize("cold", [True, False])
def test_the_trace_of_a_purged_event(yard: Yard, cold: bool) -> None:  # noqa: F811
    yard.purge()
    if cold:
        chill_all(yard.worker)
    with pytest.raises(InputError, match="the event 'r0-3' was purged from the log"):
        look(yard.worker, "r0-3")
    with pytest.raises(InputError, match="neither an event nor a trace"):
        look(yard.worker, "never")
