"""Fault 21: an event row changed, removed or added by a superuser. It is named, reported, and never healed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.scrub.scrub import scrub
from refold.model.stream.slices import POSITION_BITS
from refold.postgres.connect import connect as connect_as
from refold.store import incidents
from refold.store.log.seal import seal
from tests.support.making import events, small_segments
from tests.support.tampering import tamper
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]

SLICE = 1 << POSITION_BITS
EVENTS = 10
"""In each slice; the other positions were drawn by transactions that were rolled back."""


@pytest.fixture
def worker(database_url: str, connect: Callable[..., Connection]) -> Iterator[Connection]:
    """A worker's connection to a log of three and a half segments, of a slice each."""
    owner = connect(autocommit=True)
    small_segments(owner, SLICE)
    for number in range(4):
        append(owner, events(EVENTS, "e" if number == 0 else f"e{number}-"))
        if number < 3:
            skip_to(owner, (number + 1) * SLICE)
    with connect_as(database_url, "refold_worker", autocommit=True) as one:
        yield one


@pytest.fixture
def damage(connect: Callable[..., Connection]) -> Callable[..., int]:
    """Runs a statement as a superuser, past every guard."""
    owner = connect(autocommit=True)
    return lambda statement: tamper(owner, statement)


def skip_to(owner: Connection, position: int) -> None:
    """Uses up the positions before one."""
    owner.execute("SELECT setval('refold.events_position', %s, false)", (position,))
    owner.execute("SELECT refold.ensure_segments()")


def seal_all(worker: Connection) -> None:
    """Seals the three slices that are full, as soon as whoever else works on this server has nothing open."""
    sealed: list[int] = []

    def all_of_them() -> bool:
        sealed.extend(seal(worker))
        return len(sealed) == 3

    wait_until(all_of_them, 60)


def test_sealing_takes_two_looks_and_waits_for_older_transactions(
    worker: Connection, connect: Callable[..., Connection]
) -> None:
    older = connect()
    older.execute("SELECT pg_current_xact_id()")
    assert seal(worker) == []
    assert seal(worker) == []
    older.rollback()
    # Transactions of other databases on the server count too.
    assert wait_until(lambda: seal(worker)) == [0, 1, 2]
    assert seal(worker) == []


def test_a_writer_that_reserved_a_position_is_waited_for(
    worker: Connection, connect: Callable[..., Connection]
) -> None:
    slow = connect()
    append(slow, events(1, "slow"))
    skip_to(connect(autocommit=True), 4 * SLICE)
    seal(worker)
    assert 3 not in seal(worker)
    slow.commit()
    assert wait_until(lambda: 3 in seal(worker))
    assert scrub(worker).damage == []


def test_so_is_one_whose_id_no_snapshot_of_that_time_can_show(
    worker: Connection, connect: Callable[..., Connection]
) -> None:
    """A snapshot ends behind the last transaction that is over; of two open ones the second is beyond it."""
    first, second, third = connect(), connect(), connect()
    first.execute("SELECT pg_current_xact_id()")
    append(second, events(1, "second"))
    # In an open transaction: one that ended here would take the snapshot beyond both.
    third.execute("SELECT setval('refold.events_position', %s, false)", (4 * SLICE,))
    seal(worker)
    third.rollback()
    first.rollback()
    assert 3 not in seal(worker)
    second.commit()
    assert wait_until(lambda: 3 in seal(worker))
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
    assert [(one.fault, one.event_id) for one in found.damage if one.fault != "checksums"] == [(fault, event)]
    assert ("checksums" in {one.fault for one in found.damage}) == sealed
    (incident,) = incidents.find(worker, "i.kind = 'log_damage'")
    assert (incident.subject, incident.resolved_at) == ("refold.events_000000000000001", None)
    assert worker.execute("SELECT e::text FROM refold.events AS e ORDER BY position").fetchall() == before


def test_coordinates_are_in_the_figures_of_a_sealed_slice(worker: Connection, damage: Callable[..., int]) -> None:
    seal_all(worker)
    assert damage("UPDATE refold.events SET recorded_at = recorded_at - interval '1 s' WHERE event_id = 'e5'") == 1
    (one,) = scrub(worker).damage
    assert (one.segment, one.fault, one.position) == ("refold.events_000000000000001", "checksums", 0)
    assert one.detail == "positions 0 to 16,383: as many events as were sealed, and not the same"


def test_a_segment_that_is_gone(worker: Connection, damage: Callable[..., int]) -> None:
    name = f"refold.events_{SLICE:015}"
    seal_all(worker)
    damage(f"DROP TABLE {name}")
    found = scrub(worker)
    assert {one.fault for one in found.damage} == {"gone", "missing"}
    assert {one.segment for one in found.damage} == {name}
    assert len([one for one in found.damage if one.fault == "missing"]) == EVENTS


def test_what_a_person_has_put_back_closes_the_incident(worker: Connection, damage: Callable[..., int]) -> None:
    damage("UPDATE refold.events SET action = 'x' || action WHERE event_id = 'e5'")
    assert scrub(worker).damage
    damage("UPDATE refold.events SET action = substr(action, 2) WHERE event_id = 'e5'")
    assert scrub(worker).damage == []
    (incident,) = incidents.find(worker, "i.kind = 'log_damage'")
    assert incident.resolved_by == "refold scrub"
