"""Builds that fall behind or stand still have an incident for as long as they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.apply.page import apply_next_page
from refold.engine.deployment.create import make_builds, new_deployment
from refold.model.projection.definition import load_directory
from refold.service.duties.lag_and_stall import ALL, WHILE_WRITING, BuildProgress, causes, run, successions
from refold.store.builds.build import find as find_builds
from refold.store.builds.build import lock
from refold.store.builds.compiled import Compiler
from refold.store.incidents import Incident
from refold.store.schema.settings import Settings
from tests.support.live import SHOP, drain, make_live, wrong
from tests.support.making import events

Connection = psycopg.Connection[Any]
NOBODYS = Compiler(None)

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
ALLOWED = Settings(lag_limit=60, stalled_after=300)
FINE = BuildProgress(1, "daily", "daily__1", "live", None, True, NOON, None, None, NOON - timedelta(days=9), None, [])


def ago(seconds: float) -> datetime:
    return NOON - timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("build", "found"),
    [
        (FINE, False),
        (replace(FINE, oldest_id="e1", oldest_at=ago(60)), False),
        (replace(FINE, oldest_id="e1", oldest_at=ago(61)), True),
        # It is on its way, and nobody looks at it yet.
        (replace(FINE, oldest_id="e1", oldest_at=ago(61), state="building"), False),
    ],
)
def test_lag(build: BuildProgress, found: bool) -> None:
    told = [(one.kind, one.finding.started_at) for one in causes([build], ALLOWED)]
    assert told == ([("lag", ago(61))] if found else [])


@pytest.mark.parametrize(
    ("build", "since"),
    [
        (FINE, None),
        # It has had work for long, and moves.
        (replace(FINE, oldest_at=ago(9000), moved_at=ago(10)), None),
        # It has not moved for long, for want of work.
        (replace(FINE, oldest_at=ago(10), moved_at=ago(9000)), None),
        (replace(FINE, oldest_at=ago(9000), moved_at=ago(300)), None),
        (replace(FINE, oldest_at=ago(9000), moved_at=ago(301)), 301),
        (replace(FINE, oldest_at=ago(301), moved_at=ago(9000)), 301),
        (replace(FINE, loaded=False, moved_at=ago(301)), 301),
        (replace(FINE, loaded=False, moved_at=ago(301), writers=[17]), None),
        (replace(FINE, loaded=False, moved_at=ago(300 * WHILE_WRITING + 1), writers=[17]), 300 * WHILE_WRITING + 1),
        (replace(FINE, error="DivisionByZero", moved_at=ago(5)), 5),
        (replace(FINE, error="DivisionByZero", oldest_at=ago(3), moved_at=ago(5)), 3),
    ],
)
def test_standing_still(build: BuildProgress, since: float | None) -> None:
    found = [one.finding.started_at for one in causes([build], ALLOWED) if one.kind == "stalled"]
    assert found == ([] if since is None else [ago(since)])


def build(number: int, above: int | None = None, behind: int = 0, still: int = 0, **more: Any) -> BuildProgress:
    """A live build, `behind` and without a move for so many seconds."""
    at = ago(behind) if behind else None
    return replace(
        FINE, build_id=number, table_name=str(number), upstream_id=above, oldest_at=at, moved_at=ago(still), **more
    )


FAILED: Mapping[str, Any] = {"error": "ValueError"}


@pytest.mark.parametrize(
    ("builds", "found"),
    [
        # Nobody is at work: one cause, however many metrics there are, and however deep.
        ([build(1, behind=61), build(2, behind=61), build(3, 2, behind=61)], [("lag", ALL, "123")]),
        ([build(1, behind=400, still=400), build(2, behind=400, still=400)], [("stalled", ALL, "12")]),
        # First loads wait for them too.
        (
            [build(1, behind=400, still=400), build(2, state="building", loaded=False, still=400)],
            [("stalled", ALL, "12")],
        ),
        # Somebody is: then it is the metric, and what reads it waits with it.
        ([build(1), build(2, behind=61), build(3, 2, behind=61), build(4, 3, behind=61)], [("lag", "2", "234")]),
        ([build(1), build(2, behind=400, still=400)], [("stalled", "2", "2")]),
        # A metric that fails is a cause of its own; its readers have that one.
        ([build(1, **FAILED), build(2, 1, behind=61), build(3)], [("stalled", "1", "12")]),
        ([build(1, **FAILED), build(2, 1, behind=400, still=400)], [("stalled", "1", "12")]),
        (
            [build(1, behind=61, **FAILED), build(2, behind=61), build(3, behind=61)],
            [("stalled", "1", "1"), ("lag", ALL, "23")],
        ),
        ([build(1, behind=61)], [("lag", "1", "1")]),
    ],
)  # fmt: skip
def test_one_cause_is_one_incident(builds: list[BuildProgress], found: list[tuple[str, str, str]]) -> None:
    told = [(one.kind, one.finding.subject, "".join(sorted(one.tables))) for one in causes(builds, ALLOWED)]
    assert told == found


def open_one(kind: str, subject: str, **evidence: Any) -> Incident:
    return Incident(7, kind, subject, ago(90), ago(30), "lag and stall", None, None, evidence, None)  # type: ignore[arg-type]


def test_it_stays_one_incident_until_the_last_metric_has_caught_up() -> None:
    both = open_one("lag", ALL, builds=["1", "2"])
    [cause] = causes([build(1), build(2, behind=61)], ALLOWED, [both])
    assert (cause.kind, cause.finding.subject, cause.tables) == ("lag", ALL, ["2"])
    assert causes([build(1), build(2)], ALLOWED, [both]) == []
    # What stood still and moves again has not a lag besides.
    stood = open_one("stalled", ALL, builds=["1", "2"])
    [cause] = causes([build(1, behind=301), build(2, behind=301)], ALLOWED, [stood])
    assert (cause.kind, cause.finding.subject) == ("stalled", ALL)


def test_an_incident_goes_on_under_the_name_that_fits_by_now() -> None:
    """First one metric is late, then all; first they are late, then nothing has moved for long."""
    first = open_one("lag", "1")
    all_late = causes([build(1, behind=62), build(2, behind=61)], ALLOWED, [first])
    assert [(cause.finding.subject, one) for cause, one in successions(all_late, [first])] == [(ALL, first)]
    both = open_one("lag", ALL, builds=["1", "2"])
    standing = causes([build(1, behind=301, still=301), build(2, behind=301, still=301)], ALLOWED, [both])
    assert [(cause.kind, one) for cause, one in successions(standing, [both])] == [("stalled", both)]
    assert successions(standing, [open_one("stalled", ALL, builds=["1", "2"])]) == []


@pytest.mark.live("shop")
def test_without_workers_metrics_lag_and_stand_still(
    database_url: str,
    producers: Callable[..., Connection],
    worker: Connection,
    limit: Callable[..., None],
    incidents: Callable[[str], list[Incident]],
) -> None:
    tables = make_live(database_url)
    run(worker, NOBODYS)
    assert incidents("lag") == incidents("stalled") == []
    producer = producers()
    append(producer, events(3, "first"))
    producer.commit()
    append(producer, events(3, "second"))
    producer.commit()
    # A minute has not passed.
    run(worker, NOBODYS)
    assert incidents("lag") == incidents("stalled") == []

    limit(lag_limit=0, stalled_after=0)
    run(worker, NOBODYS)
    recorded = worker.execute("SELECT min(recorded_at) FROM refold.events").fetchone()
    assert recorded is not None
    [found] = incidents("stalled")
    assert (found.subject, incidents("lag")) == (ALL, [])
    assert set(found.evidence["builds"]) == {name.removeprefix("refold_builds.") for name in tables.values()}
    # From the very event on that waits longest.
    assert (found.started_at, found.evidence["oldest_event"]) == (recorded[0], "first0")
    assert found.resolved_at is None
    run(worker, NOBODYS)
    assert len(incidents("stalled")) == 1

    drain(database_url)
    run(worker, NOBODYS)
    [found] = incidents("stalled")
    assert (found.resolved_by, incidents("lag")) == ("lag and stall", [])
    assert wrong(database_url) == {}


@pytest.mark.live("shop")
def test_a_build_whose_query_fails(
    database_url: str,
    admin: Connection,
    producers: Callable[..., Connection],
    worker: Connection,
    incidents: Callable[[str], list[Incident]],
) -> None:
    tables = make_live(database_url)
    # Else its events would be quarantined.
    admin.execute("UPDATE refold.settings SET max_dead_letters = 0, too_many_dead_letters = 'stop'")
    admin.execute(f"ALTER TABLE {tables['daily']} ADD CONSTRAINT broken CHECK (false) NOT VALID".encode())
    producer = producers()
    append(producer, events(3))
    producer.commit()
    drain(database_url)
    run(worker, NOBODYS)
    [incident] = incidents("stalled")
    assert incident.evidence["projection"] == "daily"
    assert "violates check constraint" in incident.evidence["error"]
    admin.execute(f"ALTER TABLE {tables['daily']} DROP CONSTRAINT broken".encode())
    drain(database_url)
    run(worker, NOBODYS)
    [incident] = incidents("stalled")
    assert incident.resolved_at is not None
    assert wrong(database_url) == {}


@pytest.mark.live("shop")
def test_a_first_load_that_nobody_does(
    database_url: str,
    worker: Connection,
    limit: Callable[..., None],
    incidents: Callable[[str], list[Incident]],
) -> None:
    make_live(database_url)
    definitions = load_directory(SHOP)
    with worker.transaction():
        deployment = new_deployment(worker, "rebuild", promote=True)
        make_builds(worker, [definitions["daily"]], deployment, resumed={})
    limit(stalled_after=0)
    run(worker, NOBODYS)
    [incident] = incidents("stalled")
    assert (incident.evidence["projection"], incident.evidence["loaded"]) == ("daily", False)
    drain(database_url)
    run(worker, NOBODYS)
    [incident] = incidents("stalled")
    assert incident.resolved_at is not None


@pytest.mark.live("shop")
def test_a_build_that_somebody_sits_on_is_named_with_the_session(
    database_url: str,
    connect: Callable[..., Connection],
    producers: Callable[..., Connection],
    worker: Connection,
    limit: Callable[..., None],
    incidents: Callable[[str], list[Incident]],
) -> None:
    """More time than the others get, but not for ever."""
    tables = make_live(database_url)
    producer = producers()
    append(producer, events(3))
    producer.commit()
    limit(stalled_after=0)
    holder = connect()
    [build] = find_builds(worker, "b.projection = 'daily'")
    assert lock(holder, build.build_id) is not None
    holder.execute(f"INSERT INTO {tables['daily']} DEFAULT VALUES".encode())
    drain_all_but(worker, build.build_id)
    run(worker, NOBODYS)
    [incident] = incidents("stalled")
    assert incident.evidence["written_by"] == [holder.info.backend_pid]
    holder.rollback()
    drain(database_url)
    run(worker, NOBODYS)
    [incident] = incidents("stalled")
    assert incident.resolved_at is not None


def drain_all_but(worker: Connection, build_id: int) -> None:
    compiler = Compiler(SHOP)
    for build in find_builds(worker, "b.state = 'live'"):
        if build.build_id != build_id:
            apply_next_page(worker, compiler.of(worker, build), 1000)
