"""`refold why` and `refold where` on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg

from .conftest import Refold

Metric = Callable[[str, str], Path]
COUNTS = """SELECT action, count(*) AS events, count(DISTINCT user_id) AS users FROM events GROUP BY action"""


def ready(refold: Refold, metric: Metric, record: Callable[..., None], *events: str) -> None:
    metric("counts", COUNTS)
    assert refold("deploy").status == 0
    record(*events)
    assert refold("worker", "--drain").status == 0


def test_a_row_and_its_events(refold: Refold, metric: Metric, record: Callable[..., None]) -> None:
    ready(refold, metric, record, "buy=a", "buy=b", "buy=a", "view=c")
    done = refold("why", "counts", "action=buy")
    assert done.status == 0, done.err
    words = [line.split() for line in done.out.splitlines()]
    assert ["events", "3", "=", "3"] in words and ["users", "2", "=", "2"] in words
    assert "The same: counted again from 3 events of the log." in done.out
    assert "2 events added a value to users; the others bring none, or one that was there." in done.out
    assert done.out.count("adds a to users") == 1
    answer = refold("why", "counts", "action=buy", "--json", "--limit", "1").json
    assert answer["same"] and answer["events"] == 3 and len(answer["behind"]) == 1


def test_a_row_that_is_not_the_same(
    refold: Refold, metric: Metric, record: Callable[..., None], admin: psycopg.Connection[Any]
) -> None:
    ready(refold, metric, record, "buy=a")
    ((table,),) = admin.execute("SELECT table_name FROM refold.builds WHERE state = 'live'").fetchall()
    admin.execute(f'UPDATE refold_builds."{table}" SET events = 7'.encode())
    done = refold("why", "counts", "action=buy")
    assert done.status == 1
    assert ["events", "7", "≠", "1"] in [line.split() for line in done.out.splitlines()]
    assert "Not the same" in done.out and "`refold reconcile counts`" in done.out
    assert refold("reconcile", "counts").status == 1
    assert refold("why", "counts", "action=buy").status == 0


def test_null_and_mistakes(refold: Refold, metric: Metric, record: Callable[..., None]) -> None:
    metric("by_user", "SELECT user_id, count(*) AS events FROM events GROUP BY user_id")
    ready(refold, metric, record, "buy", "buy=a")
    assert "user_id=NULL" in refold("why", "by_user", "--null", "user_id").out
    for arguments, message in (
        (["user_id"], "user_id is not of the form column=value"),
        (["user_id=a", "--null", "user_id"], "user_id is given twice"),
        ([], "the key of by_user is user_id, and user_id is missing"),
        (["usr_id=a"], "Did you mean user_id?"),
    ):
        done = refold("why", "by_user", *arguments)
        assert done.status == 2 and message in done.err


def test_where_an_event_is(refold: Refold, metric: Metric, record: Callable[..., None]) -> None:
    ready(refold, metric, record, "buy=a")
    done = refold("where", "1")
    assert done.status == 0, done.err
    assert "counts" in done.out and "action=buy" in done.out and "buy by a at" in done.out
    assert refold("where", "1", "--json").json["metrics"][0]["rows"] == [{"key": {"action": "buy"}, "shown": True}]
    unknown = refold("where", "nothing")
    assert unknown.status == 2 and "there is no event 'nothing'" in unknown.err


def test_what_events_say_has_no_effect_on_a_terminal(
    refold: Refold, metric: Metric, record: Callable[..., None]
) -> None:
    ready(refold, metric, record, "buy=\x1b[2J[red]x")
    for done in (refold("why", "counts", "action=buy"), refold("where", "1")):
        assert "\x1b" not in done.out and "\\x1b[2J[red]x" in done.out


LONG = "12345678901234567890.123456789"


def test_numbers_are_told_digit_for_digit(
    refold: Refold, metric: Metric, record: Callable[..., None], admin: psycopg.Connection[Any]
) -> None:
    metric("money", "SELECT action, sum((metadata->>'n')::numeric) AS total, max((metadata->>'n')::numeric) AS most"
           " FROM events GROUP BY action")  # fmt: skip
    ready(refold, metric, record)
    record("buy=a", metadata={"n": Decimal(LONG), "less": Decimal("-1.10")})
    assert refold("worker", "--drain").status == 0
    done = refold("why", "money", "action=buy")
    words = [line.split() for line in done.out.splitlines()]
    assert ["total", LONG, "=", LONG] in words and f"total +{LONG}; attains most: {LONG}" in done.out
    for answer in (refold("why", "money", "action=buy", "--json"), refold("where", "1", "--json")):
        exactly = json.loads(answer.out, parse_float=str)
        event = exactly["event"] if "event" in exactly else exactly["behind"][0]
        assert event["metadata"] == {"n": LONG, "less": "-1.10"}
    assert f'"n": {LONG}' in refold("where", "1").out
    # A float would not tell the two apart.
    ((table,),) = admin.execute("SELECT table_name FROM refold.builds WHERE projection = 'money'").fetchall()
    admin.execute(f'UPDATE refold_builds."{table}" SET most = most + 0.000001'.encode())
    done = refold("why", "money", "action=buy", "--json")
    assert done.status == 1 and not done.json["rows"][0]["same"]
    assert LONG[:-6] + "457789" in refold("reconcile", "money").out
