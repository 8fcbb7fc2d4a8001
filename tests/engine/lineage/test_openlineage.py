"""Events of OpenLineage: valid by its schemas, which are in this tree."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from referencing import Registry, Resource

from refold.engine.lineage.graph import lineage_graph
from refold.engine.lineage.openlineage import BUILD_FACET, BUILD_SCHEMA, DOCUMENTATION, snapshot_events
from refold.engine.reconcile.reconcile import reconcile
from refold.model.lineage.openlineage import FACETS
from refold.postgres.connect import connect
from refold.service.duties.audits import quick_audit
from refold.store import incidents
from refold.store.builds.compiled import Compiler
from tests.engine.lineage.test_graph import GRADED
from tests.inspect.lineage.test_why import BUYS, BY_USER, DAILY, fill, tamper
from tests.support.scratch import Scratch

SCHEMAS = Path(__file__).parents[2] / "model" / "lineage" / "openlineage"
OWN = Path(__file__).parents[3] / "docs" / BUILD_SCHEMA
"""The schema that our documentation publishes."""
PATHS = (SCHEMAS / "OpenLineage.json", *(SCHEMAS / "facets").glob("*.json"), OWN)
FILES = [json.loads(path.read_text()) for path in PATHS]
REGISTRY: Registry[Any] = Registry().with_resources([(file["$id"], Resource.from_contents(file)) for file in FILES])
CHECKER = FormatChecker(["uuid"])
CHECKER.checks("date-time", ValueError)(
    # A format is of texts; the schema says whether there must be one.
    lambda value: not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None
)
CHECKER.checks("uri", ValueError)(lambda value: bool(urlsplit(value).scheme and urlsplit(value).netloc))


def validate(event: dict[str, Any]) -> int:
    """Checks an event and each of its facets against the schema that it names; answers how many facets."""

    def check(schema: str, value: object) -> None:
        Draft202012Validator({"$ref": schema}, registry=REGISTRY, format_checker=CHECKER).validate(value)

    check(event["schemaURL"], event)
    owners = [event["job"], event.get("run", {}), *event["inputs"], *event["outputs"]]
    facets = [
        (name, facet)
        for owner in owners
        for kind in ("facets", "inputFacets", "outputFacets")
        for name, facet in owner.get(kind, {}).items()
    ]
    for name, facet in facets:
        check(facet["_schemaURL"], {name: facet})
    return len(facets)


@pytest.fixture
def events(scratch: Scratch) -> Callable[[], list[dict[str, Any]]]:
    def take() -> list[dict[str, Any]]:
        with connect(scratch.url, "refold_inspector", autocommit=True) as conn:
            return snapshot_events(conn, lineage_graph(conn, Compiler(scratch.folder), columns=True))

    return take


Take = Callable[[], list[dict[str, Any]]]


def test_every_event_and_facet_is_valid(scratch: Scratch, events: Take) -> None:
    scratch.deploy(daily="-- What happens.\n" + DAILY, buys=BUYS, by_user=BY_USER, graded=GRADED)
    fill(scratch, *({"action": "buy", "user_id": "u", "metadata": {"n": n}} for n in range(3)))
    with psycopg.connect(scratch.url) as conn:
        conn.execute("CREATE VIEW metrics.best AS SELECT user_id FROM metrics.by_user WHERE total > 1")
        conn.execute("UPDATE refold.builds SET error = 'the text of an event' WHERE projection = 'buys'")
    found = events()
    assert sum(map(validate, found)) > 50
    assert "the text of an event" not in json.dumps(found)
    jobs = {event["job"]["name"].partition(".")[2]: event for event in found if "run" not in event}
    assert set(jobs) == {"daily", "buys", "by_user", "graded", "best"}
    (daily,) = jobs["daily"]["outputs"]
    assert daily["name"].endswith(".metrics.daily")
    users = daily["facets"]["columnLineage"]["fields"]["users"]["inputFields"]
    assert [(one["name"].partition(".")[2], one["field"], one["transformations"]) for one in users] == [
        ("refold.events", "user_id", [{"type": "DIRECT", "subtype": "AGGREGATION"}])
    ]
    assert "sourceCode" in jobs["graded"]["job"]["facets"] and "sql" in jobs["daily"]["job"]["facets"]
    who = jobs["graded"]["outputs"][0]["facets"]["columnLineage"]["fields"]["who"]["inputFields"][0]
    assert who["transformations"][0]["description"] == "observed on 3 events"
    runs = [event for event in found if "run" in event]
    assert {event["eventType"] for event in runs} == {"START", "RUNNING"}


def test_a_run_says_since_when_its_build_is_proved(scratch: Scratch, events: Take) -> None:
    scratch.deploy(daily=DAILY)

    def proved() -> set[str | None]:
        facets = [event["run"]["facets"] for event in events() if "run" in event]
        return {one["refold_build"]["provedAt"] for one in facets if "refold_build" in one}

    assert proved() == {None}
    quick_audit(scratch.worker, Compiler(scratch.folder))
    [at] = proved()
    assert at is not None and datetime.fromisoformat(at).tzinfo is not None


def audits(found: list[dict[str, Any]]) -> list[tuple[str, bool, str, str]]:
    """Of each audit that ended: its depth, whether it found nothing, what it found, and how severe that is."""
    told = []
    for event in found:
        validate(event)
        if event["job"]["name"].endswith(".daily.reconcile") and event["eventType"] == "COMPLETE":
            (metric,) = event["inputs"]
            assert metric["name"].endswith(".metrics.daily") and event["outputs"] == []
            (test,) = event["run"]["facets"]["test"]["tests"]
            (one,) = metric["inputFacets"]["dataQualityAssertions"]["assertions"]
            assert (test["status"] == "pass") is one["success"]
            told.append((one["params"]["depth"], one["success"], one["actual"], one["severity"]))
    return told


def test_an_audit_is_the_run_of_a_test(scratch: Scratch, events: Take) -> None:
    scratch.deploy(daily=DAILY)
    fill(scratch, {"action": "buy", "user_id": "u"})
    assert audits(events()) == []
    quick_audit(scratch.worker, Compiler(scratch.folder))
    quick_audit(scratch.worker, Compiler(scratch.folder))
    assert audits(events()) == [("quick", True, "slices that differ: 0", "warn")]
    found = events()
    ids = {event["run"]["runId"] for event in found if event["job"]["name"].endswith(".reconcile")}
    assert len(ids) == 1 and ids == {e["run"]["runId"] for e in events() if e["job"]["name"].endswith(".reconcile")}
    tamper(scratch, "daily", "UPDATE TABLE SET events = 7")
    reconcile(scratch.worker, scratch.folder, depth="slice")
    reconcile(scratch.worker, scratch.folder)
    # What differed is told again by the next snapshots: a receiver may have been away.
    assert audits(events()) == [
        ("quick", False, "slices that differ: 1", "warn"),
        ("deep", True, "slices that differ: 0", "warn"),
    ]
    incidents.detect(scratch.worker, "drift", "daily", by="a test", evidence={"depth": "deep"})
    assert audits(events())[-1] == ("deep", False, "rows differ", "error")


def test_the_schema_of_our_facet_is_published_where_the_facet_says(scratch: Scratch, events: Take) -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert project["urls"]["Documentation"] == DOCUMENTATION
    assert json.loads(OWN.read_text())["$id"] == BUILD_FACET
    scratch.deploy(daily=DAILY)
    run = next(event for event in events() if "run" in event)
    assert run["run"]["facets"]["refold_build"]["_schemaURL"] == BUILD_FACET
    for name in ("table", "state", "cursor", "eventsApplied"):
        damaged = json.loads(json.dumps(run))
        damaged["run"]["facets"]["refold_build"][name] = None
        with pytest.raises(ValidationError):
            validate(damaged)


def test_a_build_keeps_its_run_until_it_ends(scratch: Scratch, events: Take) -> None:
    scratch.deploy(daily=DAILY)
    first = {event["run"]["runId"] for event in events() if "run" in event}
    again = {event["run"]["runId"] for event in events() if "run" in event}
    assert first == again and len(first) == 1
    scratch.deploy(daily=DAILY.replace("count(*)", "2 * count(*)"))
    ended = [event for event in events() if event.get("eventType") == "COMPLETE"]
    assert [event["run"]["runId"] for event in ended] == list(first)
    assert len({event["run"]["runId"] for event in events() if "run" in event}) == 2
    for event in ended:
        validate(event)


def test_that_the_check_can_fail(scratch: Scratch, events: Take) -> None:
    scratch.deploy(daily=DAILY)
    damages: list[Callable[[Any, Any], object]] = [
        lambda job, run: job["outputs"][0]["facets"]["columnLineage"].pop("fields"),
        lambda job, run: job["job"].pop("namespace"),
        lambda job, run: run["run"].update(runId="not a uuid"),
        lambda job, run: run.update(eventType="GONE"),
        lambda job, run: run.update(eventTime="yesterday"),
        lambda job, run: run.update(producer="refold"),
    ]
    for damage in damages:
        job, run = next(e for e in events() if "run" not in e), next(e for e in events() if "run" in e)
        damage(job, run)
        with pytest.raises(ValidationError):
            validate(job)
            validate(run)


def test_each_facet_has_its_schema_in_this_tree() -> None:
    known = {file["$id"].partition("/facets/")[2].removesuffix(".json") for file in FILES}
    assert set(FACETS.values()) <= known
