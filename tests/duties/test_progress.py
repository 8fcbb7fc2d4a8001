"""Builds that fall behind or stand still have an incident for as long as they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from live import SHOP, drain, make_live, wrong
from making import events
from refold import append
from refold.builds.build import find as find_builds
from refold.builds.build import lock
from refold.builds.make import make_builds, new_deployment
from refold.builds.upkeeper import Upkeepers
from refold.duties.limits import Limits
from refold.duties.progress import WHILE_WRITING, Standing, lagging, run, stalled
from refold.incidents import Incident
from refold.projections.definition import load_directory
from refold.worker.page import turn

Connection = psycopg.Connection[Any]
NOBODYS = Upkeepers(None)

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
ALLOWED = Limits(
    lag_limit=60, stalled_after=300, held_back_after=60, held_snapshot_after=60, impure_sample=20, latency_days=30
)
FINE = Standing(1, "daily", "daily__1", "live", None, True, NOON, None, None, NOON - timedelta(days=9), None, [])


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
def test_lag(build: Standing, found: bool) -> None:
    assert [one.started_at for one in lagging([build], ALLOWED)] == ([ago(61)] if found else [])


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
def test_standing_still(build: Standing, since: float | None) -> None:
    assert [one.started_at for one in stalled([build], ALLOWED)] == ([] if since is None else [ago(since)])


def test_who_waits_for_a_build_that_fails_says_so() -> None:
    above = replace(FINE, error="ValueError", table_name="graded__1")
    below = replace(FINE, build_id=2, upstream_id=1, oldest_at=ago(400))
    assert [one.evidence["waits_for"] for one in stalled([above, below], ALLOWED)] == [None, "graded__1"]


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
    for kind in ("lag", "stalled"):
        found = incidents(kind)
        assert {one.subject for one in found} == {name.removeprefix("refold_builds.") for name in tables.values()}
        # From the very event on that waits longest.
        assert {(one.started_at, one.evidence["oldest_event"]) for one in found} == {(recorded[0], "first0")}
        assert {one.resolved_at for one in found} == {None}
    run(worker, NOBODYS)
    assert len(incidents("lag")) == len(tables)

    drain(database_url)
    run(worker, NOBODYS)
    for kind in ("lag", "stalled"):
        assert {one.resolved_by for one in incidents(kind)} == {"progress"}
    assert wrong(database_url) == {}


def test_a_build_whose_query_fails(
    database_url: str,
    admin: Connection,
    producers: Callable[..., Connection],
    worker: Connection,
    incidents: Callable[[str], list[Incident]],
) -> None:
    tables = make_live(database_url)
    # Else its events would be set aside.
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
    upkeepers = Upkeepers(SHOP)
    for build in find_builds(worker, "b.state = 'live'"):
        if build.build_id != build_id:
            turn(worker, upkeepers.of(worker, build), 1000)
