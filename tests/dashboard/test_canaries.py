"""Canaries on the dashboard: whatever readers see, its pages are about the live build, and say who sees the other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from refold.engine.canary.canary import start
from refold.engine.canary.check import run
from refold.engine.deployment.deploy import deploy
from refold.inspect.latencies import together
from refold.model.projection.definition import load_directory
from refold.postgres.connect import connect
from refold.store.builds.compiled import Compiler
from refold.store.incidents import detect
from refold.store.retentions import put
from tests.support.dashboard import EVIDENCE, Running
from tests.support.live import SHOP
from tests.support.scratch import Connection
from tests.support.waiting import wait_until

pytestmark = pytest.mark.live("shop")


@pytest.fixture
def worker(eventful: str) -> Iterator[Connection]:
    with connect(eventful, "refold_worker", autocommit=True) as conn:
        yield conn


@pytest.fixture
def changed(worker: Connection, tmp_path: Path) -> Path:
    """A folder with the shop's `daily`, which leaves events out, deployed beside the live build."""
    (tmp_path / "daily.sql").write_text(
        (SHOP / "daily.sql").read_text().replace("FROM events", "FROM events WHERE action <> 'view'")
    )
    deploy(worker, tmp_path, load_directory(tmp_path), lambda progress: None, promote=False)
    return tmp_path


def words(text: str) -> str:
    """The text of a page."""
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def test_the_page_of_a_metric_reads_the_live_build(dashboard: Running, worker: Connection, changed: Path) -> None:
    before = dashboard.get("/metrics/daily.json", EVIDENCE).body["rows"]["rows"]
    assert any("view" in row for row in before)
    assert "canary:" not in words(dashboard.get("/metrics/daily").text)
    start(worker, Compiler(changed), "daily", steps=[100])
    wait_until(lambda: "canary: seen by 100 % of readers" in words(dashboard.get("/metrics/daily").text))
    page = dashboard.get("/metrics/daily", EVIDENCE).text
    assert '<a class="pill load" href="/canaries">' in page
    assert "as analysts see them" not in page and "of the live build" in page
    assert dashboard.get("/metrics/daily.json", EVIDENCE).body["rows"]["rows"] == before


def test_the_definition_is_what_the_author_wrote(dashboard: Running, worker: Connection, tmp_path: Path) -> None:
    folder = tmp_path / "projections"
    folder.mkdir()
    text = (
        "-- What was paid.\nSELECT action, sum((metadata ->> 'amount')::numeric) AS paid\nFROM events GROUP BY action"
    )
    (folder / "paid.sql").write_text(text)
    (tmp_path / "events").mkdir()
    (tmp_path / "events/buy.v1_to_v2.sql").write_text("metadata || jsonb_build_object('amount', 1)")
    deploy(worker, folder, load_directory(folder), lambda progress: None)
    assert worker.execute("SELECT FROM refold.builds WHERE definition LIKE '%no_upcast(%'").rowcount == 1
    page = dashboard.get("/metrics/paid.json", EVIDENCE).body
    assert (page["definition"], page["upcasters"]) == (text, ["buy"])
    shown = words(dashboard.get("/metrics/paid", EVIDENCE).text)
    assert "The upcaster of buy is part of it, too" in shown and "no_upcast" not in shown
    page = dashboard.get("/metrics/daily.json", EVIDENCE).body
    assert (page["definition"], page["upcasters"]) == ((SHOP / "daily.sql").read_text(), [])
    assert "upcaster" not in dashboard.get("/metrics/daily", EVIDENCE).text


def test_which_build_a_figure_is_about(dashboard: Running, worker: Connection, changed: Path) -> None:
    for bucket, state in ((77, "live"), (78, "building")):
        worker.execute(
            "INSERT INTO refold.latencies (minute, build_id, stage, bucket, events)"
            " SELECT date_trunc('minute', clock_timestamp()), build_id, 'fresh', %s, 5 FROM refold.builds"
            " WHERE projection = 'daily' AND state = %s",
            (bucket, state),
        )
    counts = together(worker, minutes=5)
    assert (counts.get(77), counts.get(78)) == (5, None)
    assert "without candidates" in words(dashboard.get("/").text)
    start(worker, Compiler(changed), "daily", steps=[100])
    wait_until(lambda: "canary: seen by 100 % of readers" in words(dashboard.get("/metrics/daily").text))
    page = words(dashboard.get("/metrics/daily").text)
    assert "the live build: 0 events waiting" in page
    assert "all else on this page is about the live one" in page and "Healed rows of the live build" in page
    assert "canary" in page[page.index("Builds newest first") :]


def test_what_a_metric_keeps(dashboard: Running, worker: Connection) -> None:
    def page(name: str = "daily") -> str:
        return words(dashboard.get(f"/metrics/{name}").text)

    assert "refold retain" not in page()
    put(worker, "daily", keep="4000 days")
    wait_until(lambda: "No row has gone yet; it is to keep 4000 days, now from 20" in page())
    worker.execute("UPDATE refold.builds SET retained_from = 20000 WHERE projection = 'daily' AND state = 'live'")
    wait_until(lambda: "It keeps its rows from 2024-10-04 on; it is to keep 4000 days" in page())
    assert "refold retain" not in page("views")


def test_what_waits_is_not_said_to_catch_up(dashboard: Running, worker: Connection, changed: Path) -> None:
    told = words(dashboard.get("/").text)
    assert "0 being built, 1 that waits, beside what is live daily ready to promote" in told
    assert "catching up" not in told
    start(worker, Compiler(changed), "daily", steps=[30, 100], soak=timedelta(seconds=90))
    assert "each lasts 1 min 30 s" in words(dashboard.get("/canaries").text)
    wait_until(lambda: "daily canary , seen by 30 % of readers" in words(dashboard.get("/").text))
    assert "ready to promote" not in words(dashboard.get("/").text)


def test_an_abort_as_people_read_it(dashboard: Running, worker: Connection, changed: Path) -> None:
    start(worker, Compiler(changed), "daily", steps=[40], soak=timedelta(0), expect=["identical"])
    run(worker, Compiler(changed))
    observed = words(dashboard.get("/").text)
    assert "The canary of daily was aborted" in observed and "None" not in observed
    assert "The candidate of daily: the builds are not identical; seen by 40 % of readers" in words(
        dashboard.get("/", EVIDENCE).text
    )
    page = words(dashboard.get("/metrics/daily").text)
    assert "never live" in page and "kept for rollback" not in page


def test_a_candidate_with_other_columns_is_seen_by_no_reader(
    dashboard: Running, worker: Connection, tmp_path: Path
) -> None:
    text = (SHOP / "daily.sql").read_text()
    (tmp_path / "daily.sql").write_text(text.replace("AS events,", "AS number,"))
    deploy(worker, tmp_path, load_directory(tmp_path), lambda progress: None, promote=False)
    start(worker, Compiler(tmp_path), "daily", steps=[40, 100])
    told = words(dashboard.get("/canaries").text)
    assert "Seen by no reader" in told and "only metrics_canary shows daily: its columns differ" in told
    assert "canary: seen by 0 % of readers" in words(dashboard.get("/metrics/daily").text)


def test_letters_of_a_build_that_is_not_live(dashboard: Running, changed: Path) -> None:
    told = words(dashboard.get("/dead-letters").text)
    assert "left out of a build that is not live, of daily" in told and "left out of daily" in told
    titles = ("Events are left out of daily", "Events are left out of the candidate of daily")
    told = words(dashboard.get("/incidents").text)
    assert [told.count(one) for one in titles] == [1, 1]
    overview = words(dashboard.get("/").text)
    assert all(one in overview for one in titles)
    [one] = [one for one in json.loads(dashboard.get("/incidents.json").text)["found"]["told"] if one["candidate"]]
    assert one["kind"] == "dead_letters" and one["subject"].startswith("daily__")


@pytest.mark.parametrize(
    ("kind", "evidence", "begins"),
    [
        ("hot_key", {"key": {"user_id": "u1"}, "events": 9}, "user_id=u1 has 9 events"),
        ("anomaly", {"series": "views", "method": "silence", "hours": 3, "expected": 9}, "views is silent for 3 h"),
        ("dead_letters", {"error": "division by zero"}, "Latest error: division by zero"),
    ],
)
def test_names_keep_their_letters(
    dashboard: Running, worker: Connection, kind: str, evidence: dict[str, object], begins: str
) -> None:
    detect(worker, kind, "views", by="test", evidence=evidence)  # type: ignore[arg-type]
    assert begins in words(dashboard.get("/", EVIDENCE).text)
