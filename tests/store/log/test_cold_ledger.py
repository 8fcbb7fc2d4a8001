"""Ids of purged events are refused for ever, whatever door they come by, and while they move to the cold ledger."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import append
from refold.postgres.connect import connect as connect_as
from refold.store.log.cold_ledger import chill_step, waiting
from tests.support.at_once import at_once
from tests.support.backfilling import check, give, stage, write
from tests.support.explained import explained
from tests.support.making import events, rejected, small_segments
from tests.support.purging import chill_all, purge
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]
SIZE = 16_384
"""Positions of a segment, which are a slice."""
OLD = events(200, "old")
MOVED = {"purged": 0, "copied": 1, "released": 2}
"""Steps after which the ids of one segment are so far."""


@pytest.fixture
def worker(database_url: str) -> Iterator[Connection]:
    with connect_as(database_url, "refold_worker", autocommit=True) as connection:
        yield connection


@pytest.fixture
def log(admin: Connection, worker: Connection) -> Connection:
    """A log whose first segment is purged, with ids that have yet to move."""
    small_segments(admin, SIZE)
    append(admin, OLD)
    admin.execute("SELECT setval('refold.events_position', %s, false)", (SIZE,))
    append(admin, events(3, "new"))
    purge(admin)
    return admin


def answers(conn: Connection, offered: list[dict[str, Any]]) -> list[str]:
    return [str(receipt.answer) for receipt in append(conn, offered)]


def hot(conn: Connection) -> int:
    return int((conn.execute("SELECT count(*) FROM refold.event_ids").fetchone() or (0,))[0])


def cold(conn: Connection) -> int:
    return int((conn.execute("SELECT coalesce(sum(cardinality(ids)), 0) FROM refold.cold_ids").fetchone() or (0,))[0])


def test_a_call_that_comes_again_compares_no_two_of_its_events(log: Connection, worker: Connection) -> None:
    """Each of ten thousand with each of ten thousand would take longer than all the rest."""
    chill_all(worker)
    with explained(log) as plans:
        assert set(answers(log, OLD)) == {"duplicate"}
    removed = [
        node.get("Rows Removed by Join Filter", 0) * node["Actual Loops"] for one in plans for node in one.nodes("")
    ]
    assert removed and max(removed) < len(OLD)


@pytest.mark.parametrize("moved", MOVED)
def test_every_door_answers_as_before_the_purge(
    log: Connection, worker: Connection, producers: Callable[..., Connection], moved: str
) -> None:
    for _ in range(MOVED[moved]):
        assert chill_step(worker) == 200
    assert (hot(log), cold(log)) == {"purged": (203, 0), "copied": (203, 200), "released": (3, 200)}[moved]
    producer = producers(autocommit=True)
    same, other = OLD[7], OLD[8] | {"action": "other"}
    assert answers(producer, [same, other, *events(1, f"fresh-{moved}")]) == ["duplicate", "conflict", "accepted"]
    # As COPY first, and after that as arrays.
    assert answers(producer, OLD) == ["duplicate"] * 200
    many = [*events(100, "later"), other | {"id": "old9"}, OLD[10], OLD[10]]
    assert answers(producer, many) == ["accepted"] * 100 + ["conflict", "duplicate", "duplicate"]
    statement = "INSERT INTO refold.events (event_id, action, ts) VALUES ('old3', 'view', now())"
    with pytest.raises(psycopg.errors.UniqueViolation) as refused:
        producer.execute(statement)
    assert refused.value.diag.constraint_name == "event_ids_pkey"
    with (
        pytest.raises(psycopg.errors.UniqueViolation),
        producer.cursor().copy("COPY refold.events (event_id, action, ts) FROM STDIN") as copy,
    ):
        copy.write("unheard\tview\t2026-03-02\nold3\tview\t2026-03-02\n")
    assert answers(producer, events(1, "unheard")) == ["accepted"]
    held = "the log" if moved != "released" else "the archive"
    found = {reason for _, _, answer, reason in rejected(log) if answer == "conflict"}
    assert found == {f"{held} holds an event with this id and other content"}


def test_grouped_appends(log: Connection, worker: Connection, producers: Callable[..., Connection]) -> None:
    chill_all(worker)
    rows = (
        producers(autocommit=True)
        .execute(
            """
        SELECT answer FROM refold.append_group(
            ARRAY['old0', 'old1', 'x'], ARRAY['u0', 'u1', 'u'], ARRAY['view', 'x', 'view'],
            ARRAY['2026-03-02', '2026-03-02', '2026-03-02']::timestamptz[], ARRAY['{}', '{}', '{}']::jsonb[],
            ARRAY[1, 1, 1], ARRAY['', '', ''], ARRAY['', '', ''], ARRAY['a', 'b', 'c'], ARRAY[1, 2, 3])
        """
        )
        .fetchall()
    )
    assert rows == [("duplicate",), ("conflict",), ("accepted",)]


def test_a_backfill_from_files(log: Connection, worker: Connection, database_url: str, tmp_path: Path) -> None:
    """The check foretells what the run does."""
    chill_all(worker)
    log.execute("SELECT refold.silence_ids('{old4}')")
    other = [one | {"action": "other"} for one in OLD[3:5]]
    staged = stage(database_url, "history", write(tmp_path / "a.jsonl", [*OLD[:3], *other, *events(2, "unheard")]))
    found = check(database_url, staged, tmp_path)
    assert (found.answers.new, found.answers.duplicates, found.answers.conflicts) == (2, 4, 1)
    assert [one.reason for one in found.answers.refused] == [
        "the archive holds an event with this id and other content"
    ]
    done = give(database_url, staged)
    assert (done.accepted, done.duplicates, done.conflicts) == (2, 4, 1)


def test_steps_are_bounded_and_say_when_they_are_done(log: Connection, worker: Connection) -> None:
    assert waiting(worker)
    assert [chill_step(worker) for _ in range(3)] == [200, 200, None]
    assert not waiting(worker)
    assert log.execute("SELECT ids, released_to FROM refold.cold_ranges").fetchone() == (200, SIZE)
    assert log.execute(
        "SELECT count(*) FROM refold.cold_ids WHERE checksum <> refold.cold_checksum(ids, digests)"
        " OR ids <> (SELECT array_agg(i ORDER BY i) FROM unnest(ids) AS i)"
    ).fetchone() == (0,)
    assert log.execute(
        "SELECT sum(r.sum) = (SELECT sum(i) FROM refold.cold_ids, unnest(ids) AS i) FROM refold.cold_ranges AS r"
    ).fetchone() == (True,)


def test_further_segments_go_into_the_same_buckets(log: Connection, worker: Connection) -> None:
    chill_all(worker)
    log.execute("SELECT setval('refold.events_position', %s, false)", (2 * SIZE,))
    append(log, events(3, "newest"))
    purge(log)
    chill_all(worker)
    assert (hot(log), cold(log)) == (3, 203)
    assert answers(log, [OLD[0], *events(3, "new")]) == ["duplicate"] * 4


def test_the_number_of_buckets_stays(log: Connection, worker: Connection) -> None:
    assert log.execute("SELECT cold_buckets FROM refold.settings").fetchone() == (1024,)
    with pytest.raises(psycopg.errors.CheckViolation):
        log.execute("UPDATE refold.settings SET cold_buckets = 100")
    log.execute("UPDATE refold.settings SET cold_buckets = 64")
    chill_all(worker)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="number of buckets"):
        log.execute("UPDATE refold.settings SET cold_buckets = 128")
    assert log.execute("SELECT count(*) > 50 FROM refold.cold_ids").fetchone() == (True,)


def test_two_producers_with_one_archived_id(
    log: Connection, worker: Connection, producers: Callable[..., Connection]
) -> None:
    chill_all(worker)
    given: list[str] = []
    one, other = producers(autocommit=True), producers(autocommit=True)
    at_once(lambda: given.extend(answers(one, OLD)), lambda: given.extend(answers(other, OLD)))
    assert given == ["duplicate"] * 400


def test_no_instant_at_which_an_id_is_free(
    log: Connection, worker: Connection, connect: Callable[..., Connection], producers: Callable[..., Connection]
) -> None:
    """A producer waits for the transaction that takes the id from the ledger, and then finds it in its bucket."""
    chill_step(worker)
    caught: list[BaseException] = []
    producer = producers(autocommit=True)

    def insert() -> None:
        try:
            producer.execute("INSERT INTO refold.events (event_id, action, ts) VALUES ('old5', 'view', now())")
        except BaseException as error:
            caught.append(error)

    with worker.transaction():
        assert worker.execute("SELECT refold.chill_step()").fetchone() == (200,)
        # It does not ask for the row, and so does not wait.
        assert answers(log, [OLD[5]]) == ["duplicate"]
        thread = threading.Thread(target=insert)
        thread.start()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'transactionid'"
        wait_until(lambda: log.execute(waits, (producer.info.backend_pid,)).fetchone() == (1,))
    thread.join(30)
    assert [type(error) for error in caught] == [psycopg.errors.UniqueViolation]


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("before", [0, 1])
def test_an_older_snapshot_knows_the_id(
    log: Connection, worker: Connection, producers: Callable[..., Connection], isolation: str, before: int
) -> None:
    for _ in range(before):
        chill_step(worker)
    producer = producers()
    producer.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}".encode())
    producer.execute("SELECT refold.ensure_room(1)")
    chill_all(worker)
    assert hot(log) == 3
    assert answers(producer, [OLD[5], OLD[6] | {"action": "other"}]) == ["duplicate", "conflict"]
    with pytest.raises(psycopg.errors.UniqueViolation):
        producer.execute("INSERT INTO refold.events (event_id, action, ts) VALUES ('old7', 'view', now())")
    producer.rollback()


def test_a_prepared_transaction_keeps_the_ids(
    log: Connection, worker: Connection, connect: Callable[..., Connection]
) -> None:
    chill_step(worker)
    releasing = connect()
    releasing.execute("SELECT refold.chill_step()")
    releasing.execute("PREPARE TRANSACTION 'release'")
    releasing.commit()
    assert answers(log, [OLD[5]]) == ["duplicate"]
    log.execute("SET lock_timeout = '50ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        log.execute("INSERT INTO refold.events (event_id, action, ts) VALUES ('old5', 'view', now())")
    log.execute("ROLLBACK PREPARED 'release'")
    assert (hot(log), answers(log, [OLD[5]])) == (203, ["duplicate"])


def test_a_killed_session_leaves_the_ids_where_they_were(
    log: Connection, worker: Connection, connect: Callable[..., Connection]
) -> None:
    for step, moved in enumerate([(203, 0), (203, 200)]):
        killed = connect()
        killed.execute("SELECT refold.chill_step()")
        log.execute("SELECT pg_terminate_backend(%s, 10000)", (killed.info.backend_pid,))
        assert (step, hot(log), cold(log)) == (step, *moved)
        assert chill_step(worker) == 200
    assert (hot(log), cold(log)) == (3, 200)


def test_what_a_person_has_corrected_since_it_was_copied(log: Connection, worker: Connection) -> None:
    chill_step(worker)
    with log.transaction():
        log.execute("SET LOCAL refold.restoring = on")
        log.execute("UPDATE refold.event_ids SET digest = refold.digest('u', 'other', '2026-03-02Z', '{}', 1)"
                    " WHERE event_id = 'old5'")  # fmt: skip
    assert [chill_step(worker) for _ in range(3)] == [199, 1, None]
    corrected = {"id": "old5", "user_id": "u", "action": "other", "ts": "2026-03-02T00:00:00Z"}
    assert answers(log, [corrected, OLD[5]]) == ["duplicate", "conflict"]


def test_a_damaged_bucket_keeps_its_ids_in_the_ledger(log: Connection, worker: Connection) -> None:
    """They are copied once more before they go."""
    chill_step(worker)
    log.execute("UPDATE refold.cold_ids SET ids = '{}', digests = '{}'")
    assert chill_step(worker) == 0
    assert (hot(log), cold(log)) == (203, 200)
    chill_all(worker)
    assert answers(log, OLD) == ["duplicate"] * 200


@pytest.mark.parametrize("moved", ["copied", "released"])
def test_of_an_erased_event_everything_is_a_duplicate(log: Connection, worker: Connection, moved: str) -> None:
    """And nothing is kept, neither what a producer sends again nor what comes under its id for the first time."""
    for _ in range(MOVED[moved]):
        chill_step(worker)
    assert log.execute("SELECT refold.silence_ids('{old5,old6,unheard}')").fetchone() == (2,)
    chill_all(worker)
    other = [OLD[5] | {"action": "other"}, OLD[6] | {"user_id": "somebody else"}]
    assert answers(log, [OLD[5], *other]) == ["duplicate"] * 3
    assert answers(log, [*OLD[:100], *other]) == ["duplicate"] * 102
    assert rejected(log) == []
    assert answers(log, [OLD[7] | {"action": "other"}]) == ["conflict"]


def test_an_erased_event_whose_id_is_in_the_ledger_still(log: Connection, worker: Connection) -> None:
    with log.transaction():
        log.execute("SET LOCAL refold.restoring = on")
        log.execute("UPDATE refold.event_ids SET digest = 0 WHERE event_id IN ('old5', 'new0')")
    other = [OLD[5] | {"action": "other"}, events(1, "new")[0] | {"action": "other"}]
    assert answers(log, other) == ["duplicate", "duplicate"]
    chill_all(worker)
    assert answers(log, other) == ["duplicate", "duplicate"]
    assert rejected(log) == []


def test_a_lost_event_stays_lost(log: Connection, worker: Connection) -> None:
    """Its id is archived with the others; the answer `duplicate` would tell its producer that it is in the archive."""
    log.execute(
        "INSERT INTO refold.acceptances (segment, reason, missing, changed, unknown, details)"
        " VALUES ('x', 'x', 1, 0, 0, '{}')"
    )
    log.execute("INSERT INTO refold.lost_events SELECT 'old5', max(acceptance) FROM refold.acceptances")
    chill_all(worker)
    assert answers(log, [OLD[5]]) == ["conflict"]
    assert "has lost the event" in rejected(log)[0][3]


def test_ids_that_leave_no_room_for_a_mistake(admin: Connection, worker: Connection) -> None:
    odd = ["a", "A", " a", "a ", "ä", "a\u0308", "\n", "x" * 255]
    small_segments(admin, SIZE)
    append(admin, [{"id": one, "action": "view", "ts": 0} for one in odd])
    admin.execute("SELECT setval('refold.events_position', %s, false)", (SIZE,))
    purge(admin)
    chill_all(worker)
    assert hot(admin) == 0
    assert answers(admin, [{"id": one, "action": "view", "ts": 0} for one in odd]) == ["duplicate"] * len(odd)
    near = ["b", "B", "a  ", "x" * 254]
    assert answers(admin, [{"id": one, "action": "view", "ts": 0} for one in near]) == ["accepted"] * len(near)


GUARDED = [
    "DELETE FROM refold.cold_ids", "TRUNCATE refold.cold_ids",
    "DELETE FROM refold.event_ids WHERE event_id = 'old1'",
]  # fmt: skip


@pytest.mark.parametrize("statement", GUARDED)
def test_nobody_deletes_ids_by_accident(log: Connection, worker: Connection, statement: str) -> None:
    chill_step(worker)
    for role in ("refold_owner", "NONE"):
        log.execute(f"SET ROLE {role}".encode())
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="append-only"):
            log.execute(statement.encode())
    log.execute("SET refold.releasing = on")
    log.execute("SET ROLE refold_owner")
    if "event_ids" not in statement:
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="append-only"):
            log.execute(statement.encode())
