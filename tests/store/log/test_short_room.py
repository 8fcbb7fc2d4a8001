"""A producer's own statement that found too little room in the log is learnt from, whoever makes segments meanwhile."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from refold import append
from refold.inspect.doctor import room as log_room
from refold.postgres.connect import connect as connect_as
from refold.service.worker.loop import Worker
from tests.support.making import events, small_segments
from tests.support.sessions import somebody_waits
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]
Producers = Callable[..., Connection]

SEGMENT = 1000
LOOK = "SELECT refold.ensure_segments()"


@pytest.fixture
def worker(admin: Connection, database_url: str) -> Iterator[Connection]:
    small_segments(admin, SEGMENT)
    with connect_as(database_url, "refold_worker", autocommit=True) as conn:
        yield conn


def room(conn: Connection) -> int:
    """Positions that a statement finds which begins now."""
    row = conn.execute("SELECT refold.log_end() - 1 - last_value FROM refold.events_position").fetchone()
    assert row is not None
    return int(row[0])


def short(conn: Connection) -> list[int]:
    """The reserves that statements found too small, in order."""
    return [
        int(events)
        for (events,) in conn.execute("SELECT events FROM refold.batches WHERE NOT stored ORDER BY at").fetchall()
    ]


def brought(producer: Connection, prefix: str, number: int) -> bool:
    """Whether a COPY of so many events finds room."""
    statement = "COPY refold.events (event_id, action, ts) FROM STDIN"
    try:
        with producer.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            copy.write("".join(f"{prefix}{at}\tx\t2026-03-02T00:00:00Z\n" for at in range(number)))
    except psycopg.errors.CheckViolation as error:
        assert error.diag.message_primary == 'no partition of relation "events" found for row'
        return False
    return True


def brought_around(producer: Connection, admin: Connection, prefix: str, meanwhile: Callable[[], object]) -> bool:
    """Whether an INSERT of twice the room passes, while something happens when it has drawn most positions it finds."""
    found = room(admin)
    statement = (
        "INSERT INTO refold.events (event_id, action, ts) SELECT %s || n,"
        " CASE WHEN n = %s THEN concat('x', pg_advisory_xact_lock_shared(4711)) ELSE 'x' END, now()"
        " FROM generate_series(1, %s::bigint) AS n"
    )
    failed: list[psycopg.errors.CheckViolation] = []

    def insert() -> None:
        try:
            producer.execute(statement, (prefix, found - SEGMENT // 4, 2 * found))
        except psycopg.errors.CheckViolation as error:
            failed.append(error)

    admin.execute("SELECT pg_advisory_lock(4711)")
    thread = threading.Thread(target=insert)
    thread.start()
    try:
        wait_until(lambda: somebody_waits(admin))
        meanwhile()
    finally:
        admin.execute("SELECT pg_advisory_unlock(4711)")
        thread.join(30)
    return not failed


def waiting(admin: Connection) -> int:
    """How many passed ends are not judged yet."""
    row = admin.execute(
        "SELECT count(*) FROM refold.log_ends WHERE passed IS NOT NULL AND reserve IS NOT NULL"
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_segments_that_a_worker_makes_meanwhile_hide_no_failure(
    producers: Producers, worker: Connection, admin: Connection
) -> None:
    producer = producers(autocommit=True)
    number = 2 * room(worker)

    def look() -> None:
        assert worker.execute(LOOK).fetchone() != (0,)

    assert not brought_around(producer, admin, "a", look)
    # The sequence has not reached the log's end, for a worker has moved that.
    assert room(worker) > 0
    worker.execute(LOOK)
    assert short(worker) == [2 * SEGMENT]
    assert log_room.segments(worker)[0].verdict == "warn"
    assert "a statement failed for lack of space" in log_room.segments(worker)[0].found
    assert brought(producer, "b", number)
    worker.execute(LOOK)
    assert len(short(worker)) == 1
    assert waiting(admin) == 0


@pytest.mark.slow
def test_retries_at_once_under_a_running_worker(
    producers: Producers, worker: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten times the room, by one that brings it again as soon as it was refused, beside others that append."""
    monkeypatch.setattr("refold.service.worker.loop.SEGMENTS_EVERY", 0.05)
    over, enough = threading.Event(), threading.Event()
    producer, other = producers(autocommit=True), producers(autocommit=True)
    number = 10 * room(worker)

    def work() -> None:
        Worker(database_url, None, stopped=over.is_set, poll=0.05).run()

    def bring() -> None:
        at = 0
        while not enough.is_set():
            append(other, events(100, f"other{(at := at + 1)}-"))

    threads = [threading.Thread(target=one) for one in (bring, work)]
    for thread in threads:
        thread.start()
    attempts = 0
    try:

        def passes() -> bool:
            nonlocal attempts
            attempts += 1
            return brought(producer, f"try{attempts}-", number)

        wait_until(passes, 60)
        enough.set()
        threads[0].join(60)
        # What passed has used the room; the worker knows by now how much is wanted.
        wait_until(lambda: room(worker) >= number, 60)
    finally:
        enough.set()
        over.set()
        for thread in threads:
            thread.join(60)
    assert attempts > 1
    assert short(worker)
    assert brought(producer, "again", number)


def test_without_a_worker_the_next_append_learns(producers: Producers, worker: Connection) -> None:
    producer = producers(autocommit=True)
    number = 2 * room(worker)
    assert not any(brought(producer, f"{attempt}-", number) for attempt in range(3))
    append(producer, events(1))
    assert short(worker) == [2 * SEGMENT]


def test_an_open_transaction_is_no_failure(producers: Producers, worker: Connection, admin: Connection) -> None:
    """What it wrote on both sides of an end looks like a failure until it commits."""
    large, small = producers(), producers(autocommit=True)
    assert brought(large, "open", room(worker) - SEGMENT // 4)
    assert worker.execute(LOOK).fetchone() != (0,)
    append(large, events(SEGMENT, "more"))
    for number in range(5):
        append(small, events(1, f"small{number}-"))
        worker.execute(LOOK)
        assert short(worker) == []
    assert waiting(admin) == 1
    large.commit()
    worker.execute(LOOK)
    assert short(worker) == []
    assert waiting(admin) == 0


def test_a_busy_log_is_judged_when_those_who_wrote_then_are_done(
    producers: Producers, worker: Connection, admin: Connection
) -> None:
    producer, first, second = producers(autocommit=True), producers(), producers()
    append(first, events(1, "first"))
    assert not brought_around(producer, admin, "a", lambda: worker.execute(LOOK))
    worker.execute(LOOK)
    assert short(worker) == []
    append(second, events(1, "second"))
    first.commit()
    # Another writes, but began when the end was passed. So may others in other databases of the server.

    def looked() -> list[int]:
        worker.execute(LOOK)
        return short(worker)

    assert wait_until(looked) == [2 * SEGMENT]


def test_small_aborted_batches_are_no_failure(producers: Producers, worker: Connection, admin: Connection) -> None:
    producer = producers()
    for number in range(60):
        append(producer, events(100, f"{number}-"))
        if number % 10:
            producer.commit()
        else:
            producer.rollback()
        worker.execute(LOOK)
    assert short(worker) == []
    assert waiting(admin) == 0
