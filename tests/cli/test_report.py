"""`refold report`: the figures of a span, checked against what was done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import append
from refold.store.incidents import detect, resolve
from tests.support.law import worker_connection
from tests.support.tampering import tamper

from .conftest import Refold

EVENT = {"id": "1", "action": "view", "ts": "2026-01-02T10:00:00Z"}


@pytest.fixture
def worker(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with worker_connection(database_url) as conn:
        yield conn


def test_nothing_happened(refold: Refold) -> None:
    done = refold("report")
    assert done.status == 0
    assert "events        0 accepted" in done.out
    assert "no latencies" in done.out and "no incidents" in done.out


def test_what_happened(
    refold: Refold, metric: Callable[[str, str], Path], database_url: str, worker: psycopg.Connection[Any]
) -> None:
    metric("counts", "SELECT action, count(*) AS events FROM events GROUP BY action")
    refold("deploy")
    with psycopg.connect(database_url) as conn:
        append(conn, [EVENT, EVENT, EVENT | {"id": "2"}, EVENT | {"id": "3"}])
        append(conn, [EVENT | {"action": "other"}, {"id": "4"}])
    refold("worker", "--drain")
    start = datetime.now(UTC) - timedelta(minutes=10)
    for subject in ("a", "b"):
        detect(worker, "lag", subject, by="lag and stall", evidence={}, started_at=start)
    resolve(worker, "lag", "a", by="lag and stall")
    found = refold("report", "--json").json
    counts = ("events", "duplicates", "conflicts", "invalid", "healed", "dead_letters")
    assert {name: found[name] for name in counts} == {
        "events": 3, "duplicates": 1, "conflicts": 1, "invalid": 1, "healed": 0, "dead_letters": 0,
    }  # fmt: skip
    assert found["duplicate_rate"] == 0.25
    assert [(one["projection"], one["stage"], one["events"]) for one in found["latencies"]] == [
        ("counts", "waiting", 3),
        ("counts", "applying", 3),
        ("counts", "fresh", 3),
    ]
    for one in found["latencies"]:
        assert 0 < one["p50"] <= one["p95"] <= one["p99"] < 60
    [lag] = found["incidents"]
    assert (lag["kind"], lag["number"], lag["still_open"]) == ("lag", 2, 1)
    assert lag["to_detect"] == pytest.approx(600, abs=30)
    assert 0 <= lag["to_recover"] < 30
    shown = refold("report", "--since", "1h").out
    assert "1 refused, 25.0% of all received" in shown and "10 min" in shown


def test_dead_letters_of_builds_that_are_kept(
    refold: Refold, metric: Callable[[str, str], Path], database_url: str
) -> None:
    """Whoever has deployed a mended metric has nothing waiting, whatever its predecessor left out."""
    query = "SELECT action, sum({}) AS paid FROM events GROUP BY action"
    metric("paid", query.format("(metadata ->> 'amount')::numeric"))
    refold("deploy")
    with psycopg.connect(database_url) as conn:
        append(conn, [EVENT | {"metadata": {"amount": "nothing"}}])
    refold("worker", "--drain")
    assert refold("report", "--json").json["dead_letters"] == 1
    metric("paid", query.format("nullif(metadata ->> 'amount', 'nothing')::numeric"))
    refold("deploy")
    assert refold("report", "--json").json["dead_letters"] == 0


def test_the_span(refold: Refold, record: Callable[..., None], conn: psycopg.Connection[Any]) -> None:
    record("view=ann", "view=bob")
    tamper(conn, "UPDATE refold.events SET recorded_at = now() - interval '2 days' WHERE event_id = '1'")
    conn.commit()
    assert refold("report", "--since", "24h", "--json").json["events"] == 1
    assert refold("report", "--since", "3d", "--json").json["events"] == 2
    assert refold("report", "--since", "now").status == 2


def test_a_short_span_reads_a_part_of_the_log(record: Callable[..., None], conn: psycopg.Connection[Any]) -> None:
    """The log's BRIN index knows which blocks are that new; without it a report reads every event there is."""
    record("view=ann", "view=bob")
    conn.execute("SET enable_seqscan = off")
    plan = conn.execute(
        "EXPLAIN SELECT count(*) FROM refold.events WHERE recorded_at >= now() - interval '1 hour'"
    ).fetchall()
    assert any("Bitmap Index Scan" in line for (line,) in plan)


def test_one_is_not_many(refold: Refold, database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        append(conn, [EVENT])
        append(conn, [EVENT | {"action": "other"}])
    assert "1 conflict, 0 invalid" in refold("report").out
    assert "0 rows" in refold("report").out
