"""After any history, in the middle of runs too: each row is explained by its events, and each event names its rows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from random import Random
from typing import Any

import psycopg
import pytest
from hypothesis import Phase, example, given, settings

from refold.inspect.lineage.where import where
from refold.inspect.lineage.why import Answer, why
from refold.model.sql_text import ident
from refold.postgres.connect import connect
from refold.store.builds.build import Build, live_builds
from tests.support import steps
from tests.support.histories import Event, History
from tests.support.steps import Append, End, Step
from tests.test_one_law import clone  # noqa: F401 - a fixture

KEYS = 3
"""Rows of each metric that are explained, and events that are looked for."""
ALL = 10**6
COUNTED = "visitors"
"""The metric with a distinct count whose users are counted here once more; all of its rows are explained."""


def keys(history: History, build: Build, random: Random) -> list[dict[str, str | None]]:
    """Keys of a build's table, as texts."""
    relation = history.compiler.of(history.operator, build).statements.relations[0]
    texts = ", ".join(f"{ident(name)}::text" for name in relation.key)
    rows = history.operator.execute(f"SELECT DISTINCT {texts} FROM {relation.table}".encode()).fetchall()
    few = rows if build.projection == COUNTED else random.sample(sorted(rows, key=str), min(KEYS, len(rows)))
    return [dict(zip(relation.key, row, strict=True)) for row in few]


def first_seen(answer: Answer) -> list[str]:
    """The events that bring a user whom no event before them in the log has."""
    seen: set[str | None] = {None}
    first = []
    for one in sorted(answer.behind, key=lambda one: (one.txid, one.position, one.ordinal)):
        if one.user_id not in seen:
            seen.add(one.user_id)
            first.append(one.row_id)
    return first


def visit(number: int, user_id: str | None, minute: int) -> tuple[int, Event]:
    return number, Event(user_id, "view", minute, n=None, place=None, items="", version=1)


COMES_AGAIN: list[Step] = [
    Append(0, (visit(0, "u1", 40),), None),
    Append(1, (visit(1, "u2", 30),), None),
    End(1, commit=True),
    Append(0, (visit(2, "u2", 20), visit(3, None, 15)), None),
    End(0, commit=True),
    Append(2, (visit(4, "u2", 10), visit(5, "u1", 5)), None),
    End(2, commit=True),
]
"""The event that adds u2 is neither its first by position or by time nor its last: it is that of the transaction that
began first."""


def explain_all(history: History, conn: psycopg.Connection[Any], random: Random) -> None:
    events: set[str] = set()
    for build in live_builds(history.operator):
        for key in keys(history, build, random):
            answer = why(conn, history.compiler, build.projection, key, shown=ALL)
            assert answer.same, answer
            assert answer.events == len(answer.behind) > 0
            if build.projection == COUNTED:
                adds = [
                    one.row_id
                    for one in answer.behind
                    if any(did.column == "users" for did in one.did if did.how == "adds")
                ]
                assert adds == first_seen(answer)
                assert answer.rows == () or answer.rows[0].shown["users"] == len(adds)  # type: ignore[index]
            for one in random.sample(answer.behind, min(KEYS, len(answer.behind))):
                assert one.event_id is not None
                events.add(one.event_id)
                found = {metric.metric: metric.rows for metric in where(conn, history.compiler, one.event_id).metrics}
                assert key in [row.key for row in found[build.projection]], (build.projection, key, one)
    for event_id in random.sample(sorted(events), min(KEYS, len(events))):
        for metric in where(conn, history.compiler, event_id).metrics:
            for row in metric.rows:
                answer = why(conn, history.compiler, metric.metric, row.key, shown=ALL)
                assert event_id in [one.event_id for one in answer.behind], (metric.metric, row)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@example(script=COMES_AGAIN)
@given(script=steps.scripts)
@settings(
    max_examples=max(settings().max_examples // 20, 2),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    report_multiple_bugs=False,
)
def test_each_row_is_explained(clone: Callable[[], str], script: list[Step]) -> None:  # noqa: F811
    url = clone()
    random = Random(len(script))
    with (
        closing(History(url)) as history,
        connect(url, "refold_inspector", autocommit=True) as conn,
    ):
        for at, step in enumerate(script, start=1):
            step(history)
            if at % max(len(script) // 3, 1) == 0:
                explain_all(history, conn, random)
        history.drain(limit=7)
        explain_all(history, conn, random)
