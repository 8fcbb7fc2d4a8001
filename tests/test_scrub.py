"""Fault 21: an event row changed, removed or added by a superuser. It is named, reported, and never healed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from making import events, small_segments
from refold import append, incidents
from refold.database import connect as connect_as
from refold.log.seal import Segment, seal
from refold.scrub.scrub import WHOLE_LOG, scrub
from waiting import wait_until

Connection = psycopg.Connection[Any]

SIZE = 10


@pytest.fixture
def worker(database_url: str, connect: Callable[..., Connection]) -> Iterator[Connection]:
    """A worker's connection to a log of three and a half segments."""
    owner = connect(autocommit=True)
    small_segments(owner, SIZE)
    append(owner, events(35))
    with connect_as(database_url, "refold_worker", autocommit=True) as one:
        yield one


@pytest.fixture
def damage(connect: Callable[..., Connection]) -> Callable[..., int]:
    """Runs a statement as a superuser, past every guard."""
    owner = connect(autocommit=True)
    owner.execute("SET session_replication_role = replica")
    return lambda statement: owner.execute(statement).rowcount


def seal_all(worker: Connection) -> None:
    """Seals the three segments that are full, as soon as whoever else works on this server has nothing open."""
    sealed: list[Segment] = []

    def all_of_them() -> bool:
        sealed.extend(seal(worker))
        return len(sealed) == 3

    wait_until(all_of_them, 60)


def test_sealing_waits_for_writers_that_no_snapshot_lists(
    worker: Connection, connect: Callable[..., Connection]
) -> None:
    """Of the transactions in progress a snapshot names only those that are older than the last that has ended."""
    for _ in range(2):
        seal(worker)
    first, second = connect(), connect()
    first.execute("SELECT pg_current_xact_id()")
    append(second, events(1, "late"))  # The 36th position, in the fourth segment.
    append(first, events(5, "over"))  # Passes its end.
    seal(worker)
    first.commit()
    for _ in range(3):
        assert all(one.lower < 3 * SIZE for one in seal(worker)), "sealed beside an open writer"
    second.commit()
    assert scrub(worker).damage == []


def test_sealing_takes_two_looks_and_waits_for_older_transactions(
    worker: Connection, connect: Callable[..., Connection]
) -> None:
    older = connect()
    older.execute("SELECT pg_current_xact_id()")
    assert seal(worker) == []
    assert seal(worker) == []
    older.rollback()
    # Transactions of other databases on the server count too.
    sealed = wait_until(lambda: seal(worker))
    assert [(one.lower, one.upper) for one in sealed] == [(1, 11), (11, 21), (21, 31)]
    assert seal(worker) == []


def test_a_writer_that_reserved_a_position_is_waited_for(
    worker: Connection, connect: Callable[..., Connection]
) -> None:
    slow = connect()
    append(slow, events(1, "slow"))
    append(connect(autocommit=True), events(20, "quick"))
    seal(worker)
    assert 31 not in [one.lower for one in seal(worker)]
    slow.commit()
    seal(worker)
    assert scrub(worker).damage == []


@pytest.mark.parametrize("sealed", [False, True], ids=["unsealed", "sealed"])
@pytest.mark.parametrize(
    ("statement", "fault", "event"),
    [
        ("UPDATE refold.events SET action = 'other' WHERE event_id = 'e5'", "changed", "e5"),
        ("UPDATE refold.events SET ts = ts + interval '1 day' WHERE event_id = 'e5'", "changed", "e5"),
        ("UPDATE refold.events SET metadata = '{\"a\": 1}' WHERE event_id = 'e5'", "changed", "e5"),
        ("DELETE FROM refold.events WHERE event_id = 'e5'", "missing", "e5"),
        (
            "INSERT INTO refold.events (txid, position, event_id, action, ts)"
            " SELECT txid, position + 100000, 'forged', action, ts FROM refold.events WHERE false"
            " UNION ALL SELECT '5', 7, 'forged', 'view', now()",
            "unknown",
            "forged",
        ),
    ],
)
def test_each_event_is_named(
    worker: Connection, damage: Callable[..., int], statement: str, fault: str, event: str, sealed: bool
) -> None:
    if sealed:
        seal_all(worker)
    assert scrub(worker).damage == []
    assert damage(statement) == 1
    before = worker.execute("SELECT e::text FROM refold.events AS e ORDER BY position").fetchall()
    found = scrub(worker)
    assert [(one.fault, one.event_id) for one in found.damage if one.fault != "figures"] == [(fault, event)]
    assert ("figures" in {one.fault for one in found.damage}) == sealed
    (incident,) = incidents.find(worker, "i.kind = 'log_damage'")
    where = "refold.events_000000000000001" if sealed or fault != "missing" else WHOLE_LOG
    assert (incident.subject, incident.resolved_at) == (where, None)
    assert worker.execute("SELECT e::text FROM refold.events AS e ORDER BY position").fetchall() == before


def test_coordinates_are_in_the_figures_of_a_sealed_segment(worker: Connection, damage: Callable[..., int]) -> None:
    seal_all(worker)
    assert damage("UPDATE refold.events SET recorded_at = recorded_at - interval '1 s' WHERE event_id = 'e5'") == 1
    (one,) = scrub(worker).damage
    assert (one.segment, one.fault) == ("refold.events_000000000000001", "figures")


def test_a_segment_that_is_gone(worker: Connection, damage: Callable[..., int]) -> None:
    seal_all(worker)
    damage("DROP TABLE refold.events_000000000000011")
    found = scrub(worker)
    assert {one.fault for one in found.damage} == {"gone", "missing"}
    assert {one.segment for one in found.damage} == {"refold.events_000000000000011"}
    assert len([one for one in found.damage if one.fault == "missing"]) == SIZE


def test_what_a_person_has_put_back_closes_the_incident(worker: Connection, damage: Callable[..., int]) -> None:
    damage("UPDATE refold.events SET action = 'x' || action WHERE event_id = 'e5'")
    assert scrub(worker).damage
    damage("UPDATE refold.events SET action = substr(action, 2) WHERE event_id = 'e5'")
    assert scrub(worker).damage == []
    (incident,) = incidents.find(worker, "i.kind = 'log_damage'")
    assert incident.resolved_by == "refold scrub"
