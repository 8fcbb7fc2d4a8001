"""The pages that explain a row and an event: what they say, to whom, and what they may cost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import psycopg
import pytest

from refold import append
from refold.dashboard.pages import explained
from refold.dashboard.pages.lineage import near
from refold.dashboard.wording import event_path, row_path
from refold.inspect.lineage.cost import Bound
from refold.inspect.lineage.graph import Edge, Graph
from tests.support.dashboard import EVIDENCE, HOSTILE, Running, tamper
from tests.support.live import drain
from tests.support.making import events
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.live("shop"), pytest.mark.slow]

VIEWS = row_path("daily", {"day": "2026-03-02", "action": "view"})
TRACE = "0af7651916cd43dd8448eb211c80319c"


def as_json(path: str) -> str:
    before, question, query = path.partition("?")
    return f"{before}.json{question}{query}"


def test_a_row_is_counted_again(dashboard: Running, eventful: str) -> None:
    page = dashboard.get("/metrics/daily", EVIDENCE)
    assert VIEWS.replace("&", "&amp;") in page.text
    row = dashboard.get(VIEWS, EVIDENCE)
    assert "Counted again, they make the same." in row.text and "data-still" in row.text
    answer = dashboard.get(as_json(VIEWS), EVIDENCE).body["why"]["answer"]
    assert answer["same"] and answer["rows"][0]["shown"] == answer["rows"][0]["counted"]
    assert answer["events"] == answer["rows"][0]["shown"]["events"] > 0
    for event in answer["behind"]:
        assert event_path(event["event_id"]) in row.text
    tamper(eventful)
    assert "they make something else" in dashboard.get(VIEWS, EVIDENCE).text
    assert not dashboard.get(as_json(VIEWS), EVIDENCE).body["why"]["answer"]["same"]


def test_every_row_of_every_metric_leads_to_its_events(dashboard: Running) -> None:
    metrics = [one["metric"] for one in dashboard.get("/index.json").body["health"]["builds"]]
    asked = 0
    for metric in metrics:
        for path in dashboard.get(f"/metrics/{metric}.json", EVIDENCE).body["rows"]["explains"]:
            answer = dashboard.get(as_json(path), EVIDENCE)
            assert answer.status == 200 and answer.body["why"]["answer"]["same"], (path, answer.text)
            asked += 1
    assert asked > 10


def test_without_a_token_nothing_is_explained(dashboard: Running) -> None:
    for path in (VIEWS, event_path("poison0"), "/events", "/events?trace=" + TRACE, event_path("no such")):
        page = dashboard.get(path)
        assert page.status == 303 and page.headers["location"].startswith("/sign-in?next=%2F"), path
        assert dashboard.get(as_json(path)).status == 401
    # Not even whether an id is known.
    assert dashboard.get("/search?q=poison0").headers["location"] == "/?q=poison0"
    assert "columns" not in dashboard.get("/lineage.json?detail=columns").body["detail"]


def test_keys_that_are_none(dashboard: Running) -> None:
    for key in ("", "[]", "{", '{"day": []}', '{"day": "x", "action": "view"}', '{"dya": "2026-03-02"}', '{"day": 1}'):
        reply = dashboard.get(f"/metrics/daily/row?{urlencode({'key': key})}", EVIDENCE)
        assert reply.status == 404, (key, reply.text)
    nothing = dashboard.get(row_path("daily", {"day": "2026-03-02", "action": None}), EVIDENCE)
    assert nothing.status == 404 and "NULL" in nothing.text
    assert dashboard.get(row_path("dailly", {}), EVIDENCE).status == 404


IDS = (
    HOSTILE,
    "a/b",
    "..",
    ".",
    "x.json",
    "q?a=b&c#d",
    "%2F",
    "a\\b",
    "ä ö",
    "line\nbreak",
    "//evil.example",
    "+",
    "a;b",
)


def test_events_with_ids_of_any_kind(dashboard: Running, eventful: str) -> None:
    with psycopg.connect(eventful, autocommit=True) as conn:
        append(
            conn, [{"id": one, "user_id": "u1", "action": "view", "ts": 1772409600} for one in IDS if one != HOSTILE]
        )
    drain(eventful)
    for one in IDS:
        page = dashboard.get(event_path(one), EVIDENCE)
        assert page.status == 200 and "What the metrics made of it" in page.text, one
        found = dashboard.get(as_json(event_path(one)), EVIDENCE).body
        assert found["event_id"] == one and found["where"]["answer"]["found"]["event"]["event_id"] == one
        search = dashboard.get(f"/search?{urlencode({'q': one})}", EVIDENCE)
        assert search.headers["location"] == event_path(one), one
    for wrong in ("/events/nope", "/events/%00", "/events?id=%00", "/events/%FF", "/events?trace=nope"):
        assert dashboard.get(wrong, EVIDENCE).status == 404, wrong


def test_an_event_names_its_rows_and_its_dead_letters(dashboard: Running) -> None:
    found = dashboard.get("/events/poison0.json", EVIDENCE).body["where"]["answer"]["found"]
    states = {one["metric"]: one["state"] for one in found["metrics"]}
    assert states["purchases"] == "dead letter"
    assert {one["metric"] for one in found["dead_letters"]} >= {"purchases"}
    page = dashboard.get("/events/poison0", EVIDENCE).text
    assert "12,50" in page and "Dead letter" in page
    for one in found["metrics"]:
        for row in one["rows"]:
            assert row_path(one["metric"], row["key"]).replace("&", "&amp;") in page
            assert dashboard.get(row_path(one["metric"], row["key"]), EVIDENCE).status == 200
    hostile = dashboard.get(event_path(HOSTILE), EVIDENCE).text
    assert "<script>document" not in hostile and "\x1b" not in hostile and "\u202e" not in hostile


@pytest.fixture
def traced(eventful: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A dashboard that links traces, over a database in which two events are of a sampled trace."""
    with psycopg.connect(eventful) as conn:
        conn.execute("SELECT set_config('refold.traceparent', %s, true)", (f"00-{TRACE}-b7ad6b7169203331-01",))
        append(conn, events(2, "traced"))
    monkeypatch.setenv("REFOLD_TRACE_URL", "https://tempo.example/trace/{trace_id}")
    with Running(eventful) as running:
        yield running


def test_a_trace_is_found_and_linked(traced: Running) -> None:
    link = f'href="https://tempo.example/trace/{TRACE}"'
    assert link in traced.get("/events/traced0", EVIDENCE).text
    assert link not in traced.get("/events/poison0", EVIDENCE).text
    assert traced.get(f"/search?q={TRACE.upper()}", EVIDENCE).headers["location"] == f"/events?trace={TRACE}"
    page = traced.get(f"/events?trace={TRACE}", EVIDENCE).text
    assert link in page and "/events/traced0" in page and "/events/traced1" in page
    assert TRACE in traced.get("/events/traced0.json", EVIDENCE).text


def test_what_costs_much_is_asked_first(dashboard: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explained, "AT_ONCE", Bound(ask_s=0.0))
    page = dashboard.get(VIEWS, EVIDENCE)
    assert page.status == 200 and "This answer takes a while" in page.text and "Counted again" not in page.text
    offer = dashboard.get(as_json(VIEWS), EVIDENCE).body["why"]
    assert offer["answer"] is None and offer["offered"] and offer["events"] > 0
    assert "Counted again" in dashboard.get(f"{VIEWS}&run=1", EVIDENCE).text


def test_a_slow_answer_blocks_no_other_page(
    dashboard: Running, admin: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = admin.execute("SELECT pg_get_viewdef('metrics.daily'::regclass)").fetchone()
    assert row is not None
    text = str(row[0]).rstrip().rstrip(";")
    admin.execute(
        f"CREATE OR REPLACE VIEW metrics.daily AS SELECT s.* FROM ({text}) AS s WHERE pg_sleep(9) IS NOT NULL".encode()
    )
    at_once = dashboard.get(VIEWS, EVIDENCE)
    assert at_once.status == 200 and "longer than two seconds" in at_once.text
    monkeypatch.setattr(explained, "PATIENT", Bound(timeout_s=6.0, agreed=True))
    slow: list[Any] = []
    asking = threading.Thread(target=lambda: slow.append(dashboard.get(f"{VIEWS}&run=1", EVIDENCE)))
    asking.start()
    running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%%shown AS MATERIALIZED%%' AND state = 'active'"
    wait_until(lambda: admin.execute(f"{running} AND pid <> pg_backend_pid()".encode()).fetchone() == (1,))
    began = time.monotonic()
    second = dashboard.get(f"{VIEWS}&run=1", EVIDENCE)
    assert second.status == 503 and "Load this page again later" in second.text
    for path in ("/events/poison0", "/dead-letters", "/", row_path("totals", {"action": "view"})):
        assert dashboard.get(path, EVIDENCE).status in (200, 404), path
    assert asking.is_alive() and time.monotonic() - began < 5
    asking.join()
    assert slow[0].status == 200 and "There is no answer" in slow[0].text and "6 s" in slow[0].text


def test_steps_around_a_node() -> None:
    graph = Graph((), (Edge("log", "a"), Edge("log", "b"), Edge("a", "c"), Edge("c", "d")))
    assert near(graph, "a", "1") == {"log", "c"}
    assert near(graph, "a", "2") == {"log", "c", "d"}
    assert near(graph, "log", "all") == {"a", "b", "c", "d"}
    assert near(graph, "c", "all") == {"a", "log", "d"}


def test_lineage_says_what_reads_what(dashboard: Running) -> None:
    open_to_all = dashboard.get("/lineage.json").body
    signed_in = dashboard.get("/lineage.json?detail=columns", EVIDENCE).body
    edges = {(one["above"], one["below"]) for one in open_to_all["edges"]}
    assert ("events", "daily") in edges
    assert edges <= {(one["above"], one["below"]) for one in signed_in["edges"]}
    assert not any(one["lineage"] for one in open_to_all["nodes"])
    daily = next(one for one in signed_in["nodes"] if one["id"] == "daily")
    assert any(source["column"] == "action" for source in daily["lineage"]["columns"]["action"])
    assert open_to_all["now"]["daily"]["lag"] == "0 s"
    assert dashboard.get("/lineage?around=dailly").status == 404
