"""`refold trace`: what it says of an event or a trace, against what was done."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import append
from refold.inspect.traces import exemplars
from tests.support.otlp import trace_id, traceparent

from .conftest import Refold

COUNTS = "SELECT action, count(*) AS events FROM events GROUP BY action"
SUMS = "SELECT action, sum((metadata->>'amount')::numeric) AS amount FROM events GROUP BY action"


def sampled(url: str, number: int, *events: dict[str, Any]) -> None:
    with psycopg.connect(url) as conn:
        conn.execute("SELECT set_config('refold.traceparent', %s, true)", (traceparent(number, span=10),))
        append(conn, events)


def event(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": f"e{number}", "action": "a", "ts": number, **fields}


@pytest.fixture
def counts(refold: Refold, metric: Callable[[str, str], Path]) -> Refold:
    metric("counts", COUNTS)
    metric("sums", SUMS)
    assert refold("deploy").status == 0
    return refold


def test_an_event_before_and_after(counts: Refold, database_url: str, conn: psycopg.Connection[Any]) -> None:
    sampled(database_url, 7, event(1), event(2))
    told = counts("trace", "e2")
    assert told.status == 0
    assert f"trace     {trace_id(7)}" in told.out
    assert "1 event, by span 000000000000000a" in told.out
    assert told.out.count("not yet") == 2
    counts("worker", "--drain")
    [found] = counts("trace", "e2", "--json").json
    assert (found["trace_id"], found["span_id"], found["events"]) == (trace_id(7), f"{10:016x}", 1)
    assert [one["projection"] for one in found["arrivals"]] == ["counts", "sums"]
    for one in found["arrivals"]:
        moved = conn.execute(
            "SELECT moved_at FROM refold.builds_now AS b WHERE projection = %s", (one["projection"],)
        ).fetchone()
        assert moved is not None
        assert datetime.fromisoformat(one["at"]) == moved[0]
        assert one["state"] == "applied"
        appended = datetime.fromisoformat(found["at"])
        assert one["seconds"] == pytest.approx((moved[0] - appended).total_seconds())
    assert "●" in counts("trace", "e2").out


def test_a_trace_of_several_appends(counts: Refold, database_url: str) -> None:
    sampled(database_url, 7, event(1), event(2))
    sampled(database_url, 8, event(3))
    sampled(database_url, 7, event(4))
    counts("worker", "--drain")
    found = counts("trace", trace_id(7), "--json").json
    assert [one["event_ids"] for one in found] == [["e1", "e2"], ["e4"]]
    assert {arrival["state"] for one in found for arrival in one["arrivals"]} == {"applied"}


def test_an_event_without_a_trace(counts: Refold, database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        append(conn, [event(1)])
    counts("worker", "--drain")
    told = counts("trace", "e1").out
    assert "trace     none" in told
    assert told.count("  +") == 2


def test_a_dead_letter(counts: Refold, database_url: str) -> None:
    sampled(database_url, 7, event(1, metadata={"amount": "much"}))
    counts("worker", "--drain")
    states = {one["projection"]: one["state"] for one in counts("trace", "e1", "--json").json[0]["arrivals"]}
    assert states == {"counts": "applied", "sums": "dead letter"}
    assert "dead letter" in counts("trace", trace_id(7)).out


def test_moments_that_are_not_kept_any_more(counts: Refold, database_url: str, admin: Any) -> None:
    sampled(database_url, 7, event(1))
    counts("worker", "--drain")
    with psycopg.connect(database_url) as conn:
        append(conn, [event(2)])
    counts("worker", "--drain")
    admin.execute(
        "DELETE FROM refold.cursors AS c WHERE number < (SELECT max(number) FROM refold.cursors"
        " WHERE build_id = c.build_id)"
    )
    told = counts("trace", "e1").out
    assert told.count("half of the events took") == 2
    for one in counts("trace", "e1", "--json").json[0]["arrivals"]:
        assert (one["at"], one["seconds"]) == (None, None)
        assert one["by"] is not None
        assert 0 < one["typical"] < 60


@pytest.mark.parametrize("name", ["nothing", "", "f" * 32, "00000000-0000-0000-0000-000000000001", "'; DROP TABLE x"])
def test_neither_an_event_nor_a_trace(counts: Refold, name: str) -> None:
    told = counts("trace", name)
    assert told.status != 0
    assert "there is neither an event nor a trace" in told.err


def test_terminal_escapes_in_an_id_have_no_effect(counts: Refold, database_url: str) -> None:
    sampled(database_url, 7, {**event(1), "id": "a\x1b[31mb"})
    assert "\x1b" not in counts("trace", trace_id(7)).out


def test_an_observer_reads_exemplars_and_an_inspector_traces(
    counts: Refold, database_url: str, admin: psycopg.Connection[Any]
) -> None:
    for number in range(1, 4):
        sampled(database_url, number, event(number))
        counts("worker", "--drain")
    sampled(database_url, 9, event(9))
    admin.execute("SET ROLE refold_observer")
    found = exemplars(admin)
    assert {name: one.trace_id for name, one in found.items()} == {"counts": trace_id(3), "sums": trace_id(3)}
    assert all(0 < one.seconds < 60 for one in found.values())
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        admin.execute("SELECT event_id FROM refold.event_ids")
    admin.execute("SET ROLE refold_inspector")
    from refold.inspect.traces import look

    assert look(admin, "e9")[0].arrivals[0].state == "waiting"
    admin.execute("RESET ROLE")
