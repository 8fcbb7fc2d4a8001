"""A key that makes pages expensive is named, with what it costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from refold import append
from refold.inspect.doctor.metrics import hot_keys as doctor
from refold.model.projection.plan import KeyPart
from refold.model.quantiles import bucket
from refold.service.duties import hot_keys
from refold.service.duties.hot_keys import BUSY, MINUTES, expensive, run, without
from refold.store.builds.build import live
from refold.store.builds.compiled import Compiler
from refold.store.incidents import Incident
from tests.support.live import SHOP, drain, make_live
from tests.support.making import events

Connection = psycopg.Connection[Any]


@pytest.mark.parametrize(
    ("pages", "found"),
    [
        ([(0.02, 900)], False),
        ([(0.02, 500), (2.5, 400)], True),
        ([(0.02, 900), (2.5, 20)], False),  # a moment's trouble
        ([(2.5, BUSY * MINUTES)], False),  # a backlog
    ],
)
def test_pages_that_cost_too_much_for_what_they_bring(pages: list[tuple[float, int]], found: bool) -> None:
    latencies = [(7, bucket(seconds), number) for seconds, number in pages]
    costs = expensive(latencies, [7, 8])
    assert list(costs) == ([7] if found else [])
    assert all(seconds == pytest.approx(2.5, rel=0.02) for seconds in costs.values())


@pytest.fixture
def shop(
    database_url: str, admin: Connection, worker: Connection, monkeypatch: pytest.MonkeyPatch
) -> Callable[[float], None]:
    """A shop whose anonymous users come often; gives what says how long the pages of their paths took."""
    monkeypatch.setattr(hot_keys, "HOT", 50)
    make_live(database_url)
    append(admin, events(60, "a", user_id=None))
    append(admin, events(30, "b"))
    drain(database_url)
    build = live(worker, "paths")
    assert build is not None

    def took(seconds: float) -> None:
        admin.execute("DELETE FROM refold.latencies")
        worker.execute(
            "INSERT INTO refold.latencies (minute, build_id, stage, bucket, events)"
            " VALUES (date_trunc('minute', now()), %s, 'applying', %s, 90)",
            (build.build_id, bucket(seconds)),
        )

    return took


def test_a_hot_key_is_named_while_its_pages_are_expensive(
    shop: Callable[[float], None], worker: Connection, incidents: Callable[[str], list[Incident]]
) -> None:
    compiler = Compiler(SHOP)
    shop(0.02)
    run(worker, compiler)
    assert incidents("hot_key") == []
    shop(2.5)
    run(worker, compiler)
    run(worker, compiler)
    [incident] = incidents("hot_key")
    build = live(worker, "paths")
    assert build is not None
    assert (incident.subject, incident.resolved_at) == (build.table_name, None)
    assert dict(incident.evidence) == {
        "projection": "paths",
        "key": {"user_id": None},
        "events": 60,
        "share": incident.evidence["share"],
        "page_seconds": pytest.approx(2.5, rel=0.02),
        "without": "WHERE user_id IS DISTINCT FROM NULL",
    }
    [check] = doctor(worker)
    assert check.verdict == "warn"
    assert "user_id NULL has 60 events" in check.found and "2.5 s" in check.found
    assert "Write WHERE user_id IS DISTINCT FROM NULL into the projection" in (check.remedy or "")
    shop(0.02)
    run(worker, compiler)
    assert incidents("hot_key")[0].resolved_at is not None
    assert [check.verdict for check in doctor(worker)] == ["ok"]


def test_pages_that_are_expensive_for_another_reason_blame_nobody(
    shop: Callable[[float], None],
    worker: Connection,
    incidents: Callable[[str], list[Incident]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hot_keys, "HOT", 61)
    shop(2.5)
    run(worker, Compiler(SHOP))
    assert incidents("hot_key") == []


@pytest.mark.parametrize(
    ("keys", "values", "clause"),
    [
        ({"user_id": "user_id"}, {"user_id": "it's"}, "WHERE user_id IS DISTINCT FROM 'it''s'"),
        ({"half": "version / 2"}, {"half": 3}, "WHERE version / 2 IS DISTINCT FROM 3"),
        (
            {"day": "CAST(ts AT TIME ZONE 'UTC' AS DATE)", "action": "action"},
            {"day": "2026-03-01", "action": None},
            "WHERE (CAST(ts AT TIME ZONE 'UTC' AS DATE) IS DISTINCT FROM '2026-03-01' OR action IS DISTINCT FROM NULL)",
        ),
        ({"flag": "version = 1"}, {"flag": True}, "WHERE version = 1 IS DISTINCT FROM true"),
    ],
)
def test_the_clause_that_leaves_a_key_out(
    keys: dict[str, str], values: dict[str, object], clause: str, worker: Connection
) -> None:
    told = without([KeyPart(name, sql) for name, sql in keys.items()], values)
    assert told == clause
    worker.execute(f"SELECT FROM refold.events {told}".encode())


def test_the_count_of_a_key_has_an_end(
    shop: Callable[[float], None], worker: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot_keys, "COUNTED", 55)
    build = live(worker, "paths")
    assert build is not None
    hot = hot_keys.hottest(worker, Compiler(SHOP).of(worker, build))
    assert hot is not None and hot.events == 55
