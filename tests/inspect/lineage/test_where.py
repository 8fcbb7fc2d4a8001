"""Where an event is: its rows, and why it is in no row of the other metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest

from refold import append
from refold.errors import InputError
from refold.inspect.lineage.where import Found, where
from refold.postgres.connect import connect
from refold.store.builds.compiled import Compiler
from tests.inspect.lineage.test_why import BUYS, BY_USER, DAILY, FUNNEL, PATHS, WORDS, fill
from tests.support.scratch import Scratch
from tests.support.tampering import tamper

Find = Callable[[str], Found]


@pytest.fixture
def find(scratch: Scratch) -> Iterator[Find]:
    """Asks as an inspector."""
    with connect(scratch.url, "refold_inspector", autocommit=True) as conn:
        yield lambda event_id: where(conn, Compiler(scratch.folder), event_id)


def rows(found: Found) -> dict[str, list[dict[str, str | None]]]:
    return {one.metric: [row.key for row in one.rows] for one in found.metrics if one.rows}


def states(found: Found) -> dict[str, str]:
    return {one.metric: one.state for one in found.metrics if not one.rows}


def test_rows_of_every_upkeep(scratch: Scratch, find: Find) -> None:
    scratch.deploy(daily=DAILY, funnel=FUNNEL, paths=PATHS, buys=BUYS, by_user=BY_USER, words=WORDS)
    fill(scratch, {"action": "buy", "metadata": {"n": 3, "words": "a b"}}, {"action": "noise", "user_id": "u"})
    found = find("e0")
    assert found.event is not None and (found.event.action, found.event.metadata["n"]) == ("buy", 3)
    assert rows(found) == {
        "daily": [{"day": "2026-03-02", "action": "buy"}],
        "funnel": [{"user_id": None}],
        "paths": [{"user_id": None}],
        "buys": [{"event_id": "e0"}],
        "by_user": [{"user_id": None}],
        "words": [{"event_id": "e0#0"}, {"event_id": "e0#1"}],
    }
    assert all(row.shown for one in found.metrics for row in one.rows)
    noise = find("e1")
    assert states(noise) == {"paths": "left out", "buys": "left out", "by_user": "stream", "words": "left out"}
    assert {one.metric: one.because for one in noise.metrics}["by_user"] == "buys: its query leaves it out"


def test_a_dead_letter_and_what_reads_its_stream(scratch: Scratch, find: Find) -> None:
    scratch.deploy(buys=BUYS, by_user=BY_USER)
    fill(scratch, {"action": "buy", "user_id": "u", "metadata": {"n": "many"}}, {"action": "buy", "user_id": "v"})
    found = find("e0")
    assert states(found) == {"buys": "dead letter", "by_user": "stream"}
    (letter,) = found.dead_letters
    assert (letter.metric, letter.event_id, letter.state) == ("buys", "e0", "waiting")
    assert "invalid input syntax for type integer" in letter.error


def test_what_is_not_applied_yet(scratch: Scratch, find: Find) -> None:
    scratch.deploy(buys=BUYS, by_user=BY_USER, words=WORDS)
    with psycopg.connect(scratch.url) as conn:
        append(conn, [{"id": "new", "action": "buy", "ts": "2026-03-02T08:00:00Z"}])
    found = find("new")
    assert states(found) == {"buys": "not applied", "by_user": "stream", "words": "not applied"}
    assert found.metrics[-1].because == "buys: the cursor of the metric has not reached it"


def test_having_hides_its_row(scratch: Scratch, find: Find) -> None:
    scratch.deploy(few="SELECT user_id, count(*) AS n FROM events GROUP BY user_id HAVING count(*) > 1")
    fill(scratch, {"action": "a", "user_id": "u"})
    assert [(row.key, row.shown) for row in find("e0").metrics[0].rows] == [({"user_id": "u"}, False)]


def test_conflicts_under_its_id(scratch: Scratch, find: Find) -> None:
    scratch.deploy(daily=DAILY)
    fill(scratch, {"action": "buy"})
    with psycopg.connect(scratch.url) as conn:
        append(conn, [{"id": "e0", "action": "sell", "ts": "2026-03-02T08:00:00Z"}] * 2, source="the till")
        append(conn, [{"id": "e00", "action": "", "ts": "2026-03-02T08:00:00Z"}])
    (refusal, *others) = find("e0").refused
    assert not others or {one.answer for one in others} == {"conflict"}
    assert (refusal.answer, refusal.source) == ("conflict", "the till") and '"sell"' in refusal.raw
    found = find("e00")
    assert found.event is None and not found.registered and [one.answer for one in found.refused] == ["invalid"]


def test_an_event_that_the_log_has_lost(scratch: Scratch, find: Find) -> None:
    scratch.deploy(daily=DAILY)
    fill(scratch, {"action": "buy"})
    with psycopg.connect(scratch.url) as conn:
        tamper(conn, "DELETE FROM refold.events")
    found = find("e0")
    assert found.event is None and found.registered


def test_no_event(scratch: Scratch, find: Find) -> None:
    scratch.deploy(daily=DAILY)
    with pytest.raises(InputError, match="there is no event 'x%s'"):
        find("x%s")


def test_without_the_code_of_a_transform_its_rows_are_found(scratch: Scratch, find: Find) -> None:
    scratch.deploy(words=WORDS)
    fill(scratch, {"action": "say", "metadata": {"words": "a"}})
    scratch.write(words="import nothing_of_that_name")
    assert rows(find("e0")) == {"words": [{"event_id": "e0#0"}]}


@pytest.mark.parametrize("another", ["", "; CREATE VIEW metrics.daily AS SELECT 1 AS one"])
def test_a_metric_whose_view_is_another_hides_no_answer(scratch: Scratch, find: Find, another: str) -> None:
    scratch.deploy(daily=DAILY, buys=BUYS)
    fill(scratch, {"action": "buy", "metadata": {"n": 3}})
    with psycopg.connect(scratch.url) as conn:
        conn.execute(f"DROP VIEW metrics.daily{another}".encode())
    found = find("e0")
    assert rows(found).keys() == {"daily", "buys"}
    assert [row.shown for one in found.metrics for row in one.rows if one.metric == "daily"] == [False]
