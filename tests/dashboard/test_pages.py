"""What the pages say, as HTML and as JSON, to an observer and to who holds a token."""

from __future__ import annotations

import html
import json
import re
import socket
import threading
import time
from datetime import date
from decimal import Decimal
from html import escape
from typing import Any

import psycopg
import pytest

from refold import append
from refold.dashboard.pages.metric import chart
from refold.dashboard.run import REQUESTS
from refold.dashboard.wording import TITLES
from refold.inspect import health
from refold.inspect.health import Health
from refold.postgres.connect import connect
from refold.store.incidents import KINDS, detect
from tests.support.dashboard import EVIDENCE, HOSTILE, Running, audit, tamper
from tests.support.live import drain
from tests.support.waiting import wait_until

pytestmark = pytest.mark.live("shop")

PAGES = {
    "/": "/index.json",
    "/metrics/daily": "/metrics/daily.json",
    "/incidents": "/incidents.json",
    "/dead-letters": "/dead-letters.json",
    "/rejected": "/rejected.json",
    "/sinks": "/sinks.json",
    "/canaries": "/canaries.json",
    "/latency": "/latency.json",
    "/pressure": "/pressure.json",
    "/lineage": "/lineage.json",
    "/lineage?around=daily&depth=1&detail=columns": "/lineage.json?around=daily&depth=1&detail=columns",
    "/toil": "/toil.json",
}
PERSONAL = ("owned", "u0", "u1", "poison", "12,50", "reversed")
"""Parts of what events hold: ids, users, texts of errors."""


@pytest.mark.slow
def test_every_page_is_there_twice_and_an_observer_sees_nothing_personal(dashboard: Running) -> None:
    for path, as_json in PAGES.items():
        page, data = dashboard.get(path), dashboard.get(as_json)
        assert (page.status, data.status) == (200, 200), (path, page.text, data.text)
        assert page.headers["content-type"].startswith("text/html") and page.text.rstrip().endswith("</html>")
        assert escape(as_json.split("/")[-1]) in page.text
        assert isinstance(data.body, dict)
        for part in PERSONAL:
            assert part not in page.text, (path, part)
            assert part not in data.text, (as_json, part)
        again = dashboard.get(path, HX_Request="true")
        assert "<html" not in again.text and '<div id="page"' in again.text


@pytest.mark.slow
def test_evidence_is_shown_to_who_holds_the_token_and_runs_nothing(dashboard: Running) -> None:
    letters = dashboard.get("/dead-letters", EVIDENCE).text
    assert "poison0" in letters and "12,50" in letters
    rejected = dashboard.get("/rejected", EVIDENCE).text
    assert "1 to 255 characters" in rejected
    metric = dashboard.get("/metrics/daily", EVIDENCE).text
    assert "GROUP" in metric and "<del>" in metric and "2026-03-02" in metric
    for path in PAGES:
        text = dashboard.get(path, EVIDENCE).text
        assert "<script>document" not in text, path
        assert "\x1b" not in text and "\u202e" not in text, path
    assert "&lt;script&gt;" in letters and r"\u202e" in letters and r"\x1b" in letters
    found = dashboard.get("/dead-letters.json", EVIDENCE).body
    named = {one["event_id"] for group in found["letters"].values() for one in group}
    assert HOSTILE in named


@pytest.mark.slow
def test_a_tampered_row_is_said_to_be_wrong_and_then_healed(dashboard: Running, eventful: str) -> None:
    def verdict() -> Any:
        builds = dashboard.get("/index.json").body["health"]["builds"]
        return next(one["verdict"] for one in builds if one["metric"] == "daily")

    wait_until(lambda: verdict() == "incomplete")  # equal, but for its dead letters
    with connect(eventful, "refold_worker", autocommit=True) as conn:
        detect(conn, "drift", "daily", by="quick audit", evidence={"slices": ["daily__1: 2026-03-02"]})
    wait_until(lambda: verdict() == "wrong")
    assert "is wrong." in dashboard.get("/").text
    tamper(eventful)
    audit(eventful)
    wait_until(lambda: verdict() == "incomplete")
    assert "Rows of daily were healed" in dashboard.get("/").text


def test_an_incident_of_every_kind_is_told(dashboard: Running, eventful: str) -> None:
    with connect(eventful, "refold_worker", autocommit=True) as conn:
        for kind in KINDS:
            detect(conn, kind, f"subject-of-{kind}", by="test", evidence={})
    incidents = dashboard.get("/incidents?span=24h")
    assert incidents.status == dashboard.get("/").status == 200
    for kind in KINDS:
        assert TITLES[kind][0].format(f"subject-of-{kind}") in html.unescape(incidents.text)


def test_a_page_that_cannot_be_written_says_so(dashboard: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refold.dashboard.answers.json_address", lambda request, page: 1 / 0)
    page = dashboard.get("/")
    assert page.status == 500 and "This page failed" in page.text


def test_fifty_tabs_cost_one_question_a_second(dashboard: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Health] = []
    real = health.read

    def counted(conn: psycopg.Connection) -> Health:
        asked.append(real(conn))
        return asked[-1]

    monkeypatch.setattr(health, "read", counted)
    tabs = [threading.Thread(target=dashboard.get, args=("/",)) for _ in range(50)]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join()
    # They take longer than a second on a slow machine.
    assert 1 <= len(asked) <= 4


@pytest.mark.slow
def test_a_slow_view_costs_only_its_rows(dashboard: Running, admin: psycopg.Connection[Any]) -> None:
    row = admin.execute("SELECT pg_get_viewdef('metrics.totals'::regclass)").fetchone()
    assert row is not None
    text = str(row[0]).rstrip().rstrip(";")
    admin.execute(
        f"CREATE OR REPLACE VIEW metrics.totals AS SELECT s.* FROM ({text}) AS s WHERE pg_sleep(5) IS NOT NULL".encode()
    )
    page = dashboard.get("/metrics/totals", EVIDENCE)
    assert page.status == 200 and "longer than two seconds" in page.text and "Freshness" in page.text
    admin.execute("DROP VIEW metrics.totals CASCADE")
    page = dashboard.get("/metrics/totals?again=1", EVIDENCE)
    assert page.status == 200 and "cannot be read" in page.text


@pytest.mark.slow
def test_the_database_goes_away_and_comes_back(dashboard: Running, conn: psycopg.Connection[Any], server: Any) -> None:
    assert dashboard.get("/").status == 200
    name = conn.info.dbname
    conn.close()
    with psycopg.connect(server.url_of("postgres"), autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        try:
            page = wait_until(lambda: one if (one := dashboard.get("/")).status == 503 else None)
            assert page is not None and "does not answer" in page.text and "Equal to the log" not in page.text
            assert "equal the log" not in page.text
            assert dashboard.get("/index.json").body["error"] == "The database does not answer"
        finally:
            admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())
    wait_until(lambda: dashboard.get("/").status == 200)


def test_a_metric_that_is_not_there(dashboard: Running) -> None:
    page = dashboard.get("/metrics/dailly")
    assert page.status == 404 and "daily" in page.text
    assert dashboard.get("/metrics/dailly.json").status == 404
    assert dashboard.get("/nothing").status == 404
    assert dashboard.get("/search?q=daily").headers["location"] == "/metrics/daily"
    assert "no metric has" in dashboard.get("/?q=nothing").text.casefold()


def test_values_that_are_no_numbers(dashboard: Running, eventful: str) -> None:
    amounts = ("NaN", "Infinity", "-Infinity", "1e400")
    with psycopg.connect(eventful, autocommit=True) as conn:
        for day, amount in enumerate(amounts):
            event = {"id": f"odd{day}", "user_id": "u", "action": "purchase", "ts": day * 86_400_000}
            append(conn, [event | {"metadata": {"amount": amount}}])
    drain(eventful)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    for name in ("daily", "purchases", "totals"):
        page, data = dashboard.get(f"/metrics/{name}", EVIDENCE), dashboard.get(f"/metrics/{name}.json", EVIDENCE)
        assert (page.status, data.status) == (200, 200), name
        json.loads(data.text, parse_constant=refuse)
        for drawn in re.findall('data-chart="([^"]*)"', page.text):
            json.loads(html.unescape(drawn), parse_constant=refuse)


def test_a_chart_leaves_out_what_is_no_number() -> None:
    values = [1, Decimal("NaN"), Decimal("Infinity"), float("nan"), Decimal("1e400"), 10**400, Decimal(2), None, 3]
    found = chart("n", [(date(2026, 1, day), value) for day, value in enumerate(values, 1)])
    assert found is not None and found.values == [[1.0, None, None, None, None, None, 2.0, None, 3.0]]


@pytest.mark.slow
def test_requests_that_wait_hold_up_no_others(
    dashboard: Running, eventful: str, admin: psycopg.Connection[Any]
) -> None:
    row = admin.execute("SELECT table_name FROM refold.builds WHERE projection = 'daily' AND state = 'live'").fetchone()
    assert row is not None

    def ask(number: int) -> None:
        dashboard.get(f"/metrics/daily?n={number}", EVIDENCE)

    with psycopg.connect(eventful) as conn:
        conn.execute(f'LOCK TABLE refold_builds."{row[0]}" IN ACCESS EXCLUSIVE MODE'.encode())
        waiting = [threading.Thread(target=ask, args=(number,)) for number in range(100)]
        for one in waiting:
            one.start()
        time.sleep(0.5)
        assert dashboard.get("/").status == dashboard.get("/static/refold.css").status == 200
        still = sum(one.is_alive() for one in waiting)
        for one in waiting:
            one.join()
    # Behind the others, they would have been answered when hardly one of them still waited.
    assert still > 20


@pytest.mark.slow
def test_connections_without_a_request_are_closed(dashboard: Running) -> None:
    idle = [socket.create_connection(("127.0.0.1", dashboard.port)) for _ in range(REQUESTS + 10)]
    try:
        wait_until(lambda: dashboard.get("/livez").status == 503)
        wait_until(lambda: dashboard.get("/livez").status == 200)
    finally:
        for one in idle:
            one.close()
