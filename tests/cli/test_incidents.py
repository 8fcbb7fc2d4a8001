"""`refold incidents`: what is open and what was, by kind and time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from refold.store.incidents import detect, resolve
from tests.support.law import worker_connection

from .conftest import Refold


@pytest.fixture
def worker(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with worker_connection(database_url) as conn:
        yield conn


def test_nothing_happened(refold: Refold) -> None:
    assert refold("incidents").out == "no incident is open, and none was open in the last 7d\n"
    assert refold("incidents", "--open").out == "no incident is open\n"
    assert refold("incidents", "--open", "--json").json == []
    assert "incidents" not in refold("status").out


def test_what_is_open_and_what_was(refold: Refold, worker: psycopg.Connection[Any]) -> None:
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    detect(
        worker,
        "held_back",
        "session 17",
        by="blocking transactions",
        evidence={"pid": 17, "gid": None},
        started_at=hour_ago,
    )
    detect(worker, "lag", "daily__1", by="lag and stall", evidence={"seconds": 61.5}, started_at=hour_ago)
    assert "1 held_back, 1 lag open" in refold("status").out
    assert refold("status", "--json").json["incidents"] == {"held_back": 1, "lag": 1}
    resolve(worker, "lag", "daily__1", by="lag and stall")

    every, opened = refold("incidents"), refold("incidents", "--open")
    assert every.status == opened.status == 0
    assert "session 17" in opened.out and "pid 17" in opened.out and "open for 1.0 h" in opened.out
    assert "gid" not in opened.out
    assert "daily__1" in every.out and "by lag and stall" in every.out
    assert "has waited for 1 min to be applied" in every.out
    assert "daily__1" not in opened.out
    assert [one["subject"] for one in refold("incidents", "--kind", "lag", "--json").json] == ["daily__1"]
    assert [one["kind"] for one in refold("incidents", "--kind", "held-back", "--json").json] == ["held_back"]


def test_since_leaves_out_incidents_that_were_closed_before(
    refold: Refold, worker: psycopg.Connection[Any], conn: psycopg.Connection[Any]
) -> None:
    """What was over before is left out; what is open counts, whenever it began."""
    for subject in ("old", "long"):
        detect(worker, "lag", subject, by="lag and stall", evidence={})
    resolve(worker, "lag", "old", by="lag and stall")
    conn.execute(
        "UPDATE refold.incidents SET started_at = started_at - interval '8 days',"
        " detected_at = detected_at - interval '8 days', resolved_at = resolved_at - interval '8 days'"
    )
    conn.commit()
    assert [one["subject"] for one in refold("incidents", "--json").json] == ["long"]
    assert [one["subject"] for one in refold("incidents", "--since", "2w", "--json").json] == ["old", "long"]


def test_wrong_words(refold: Refold) -> None:
    done = refold("incidents", "--kind", "stalls")
    assert done.status == 2
    assert "Did you mean stalled?" in done.err
    done = refold("incidents", "--since", "yesterday")
    assert done.status == 2
    assert "7d" in done.err


def test_the_first_line_counts_and_the_last_ones_say_what_to_do(
    refold: Refold, worker: psycopg.Connection[Any]
) -> None:
    detect(worker, "dead_letters", "daily__1", by="worker", evidence={"waiting": 2})
    detect(worker, "lag", "daily__1", by="lag and stall", evidence={})
    resolve(worker, "lag", "daily__1", by="lag and stall")
    lines = refold("incidents").out.splitlines()
    assert lines[0] == "1 open, 1 resolved"
    assert refold("incidents", "--open").out.splitlines()[0] == "1 open"
    assert lines[-1].startswith("dead_letters: ") and "`refold deadletters retry NAME`" in lines[-1]
    assert not any(one.startswith("lag: ") for one in lines), "what is over needs nobody"


def test_what_was_seen_and_done_is_told_in_words(refold: Refold, worker: psycopg.Connection[Any]) -> None:
    damage = [{"fault": "changed", "event_id": f"e{number}", "detail": ""} for number in range(8)]
    detect(worker, "log_damage", "refold.events_1", by="refold scrub", evidence={"found": 8, "damage": damage})
    detect(worker, "drift", "daily", by="quick audit", evidence={"depth": "slice"})
    resolve(worker, "drift", "daily", by="quick audit", outcome={"healed": {"daily__1: missing": 3}, "figures": []})
    shown = refold("incidents").out
    assert "8 faults, the log differs from what was written: e0 (changed)" in shown
    assert "e4 (changed) and 3 more" in shown
    assert "done: 3 rows of daily__1 were missing and restored\n" in shown
    assert "{" not in shown


def test_of_drift_nobody_knows_since_when(refold: Refold, worker: psycopg.Connection[Any]) -> None:
    """A time to detect of 0 ms would be a boast."""
    detect(worker, "drift", "daily", by="quick audit", evidence={})
    shown = refold("incidents").out
    assert "detected 20" in shown and " UTC, by quick audit" in shown
    assert "detected after" not in shown
    [kind] = refold("report", "--json").json["incidents"]
    assert kind["to_detect"] is None


@pytest.mark.parametrize("span", ["0d", "99999w", "999999999w", "99999999999999999999s"])
def test_spans_that_no_calendar_has(refold: Refold, span: str) -> None:
    for command in ("incidents", "report"):
        done = refold(command, "--since", span)
        assert done.status == 2
        assert "up to 100 years" in done.err
