"""Segments of the log are there before they are needed, and nobody waits for them."""

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from refold import Log, append
from refold.engine.scrub.scrub import scrub
from refold.inspect.doctor import room as log_room
from refold.model.stream.slices import POSITION_BITS
from refold.postgres.connect import connect as connect_as
from refold.service.worker.loop import Worker
from refold.store.log.append import BULK
from refold.store.log.seal import seal
from tests.support.making import events, ids, small_segments, stored
from tests.support.sessions import somebody_waits
from tests.support.tampering import tamper
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]


def ranges(conn: Connection) -> list[tuple[int, int]]:
    rows = conn.execute("SELECT lower_position, upper_position FROM refold.segments ORDER BY 1").fetchall()
    return [(int(lower), int(upper)) for lower, upper in rows]


def room(conn: Connection) -> int:
    """Positions left in the last segment and the ones ahead of it."""
    row = conn.execute(
        "SELECT (SELECT max(upper_position) FROM refold.segments) - 1 - last_value FROM refold.events_position"
    ).fetchone()
    assert row is not None
    return int(row[0])


def append_json(conn: Connection, batch: list[dict[str, Any]]) -> None:
    conn.execute("SELECT count(*) FROM refold.append(%s)", (psycopg.types.json.Jsonb(batch),))


def append_singly(conn: Connection, batch: list[dict[str, Any]]) -> None:
    for event in batch:
        append(conn, [event])


DOORS: dict[str, Callable[[Connection, list[dict[str, Any]]], object]] = {
    "copy": append,
    "arrays": lambda conn, batch: append(conn, batch, optimistic=False),
    "singly": append_singly,
    "sql": append_json,
}


@pytest.mark.parametrize("door", DOORS)
def test_every_door_makes_them_ahead(producer: Connection, admin: Connection, door: str) -> None:
    small_segments(admin, 20)
    offered: list[dict[str, Any]] = []
    for batch in range(8):
        new = events(BULK + 1, f"{door}{batch}-")
        DOORS[door](producer, new)
        producer.commit()
        offered += new
        assert room(admin) >= 10
    assert stored(admin) == ids(offered)
    cuts = ranges(admin)
    assert all(upper - lower == 20 for lower, upper in cuts)
    assert [lower for lower, _ in cuts[1:]] == [upper for _, upper in cuts[:-1]]


def test_a_batch_may_be_longer_than_many_segments(producer: Connection, admin: Connection) -> None:
    small_segments(admin, 5)
    for number in range(2):
        append(producer, events(400, f"{number}-"), optimistic=number == 0)
        producer.commit()
    assert len(stored(admin)) == 800


def test_a_worker_makes_them_while_the_reserve_is_good(
    producer: Connection, admin: Connection, database_url: str
) -> None:
    """A producer's transaction may stay open for long, and what it made nobody else can add to meanwhile."""
    small_segments(admin, 100)
    append(producer, events(220))
    assert room(admin) == 80
    producer.commit()
    Worker(database_url, None).run(drain=True)
    assert room(admin) == 280
    append(producer, events(220, "f"))
    other = psycopg.connect(database_url, autocommit=True)
    with other:
        # Nothing was made in the open transaction, so nobody waits for its end.
        other.execute("SET lock_timeout = '1ms'")
        assert other.execute("SELECT refold.ensure_segments()").fetchone() != (0,)
        for number in range(10):
            append(other, events(60, f"other{number}-"))
            other.execute("SELECT refold.ensure_segments()")
    producer.commit()
    assert len(stored(admin)) == 220 + 220 + 600


@pytest.mark.slow
def test_room_follows_what_producers_bring(producer: Connection, admin: Connection, database_url: str) -> None:
    """A statement sees the segments that are there when it begins: the room for all of it has to be there before."""
    small_segments(admin, 1000)
    producer.autocommit = True

    def brought(prefix: str, number: int) -> bool:
        """Whether a COPY of so many events, which asks nobody for room, finds it. A worker looks afterwards."""
        statement = "COPY refold.events (event_id, action, ts) FROM STDIN"
        try:
            with producer.cursor() as cursor, cursor.copy(statement.encode()) as copy:
                copy.write("".join(f"{prefix}{at}\tx\t2026-03-02T00:00:00Z\n" for at in range(number)))
        except psycopg.errors.CheckViolation as error:
            assert error.diag.message_primary == 'no partition of relation "events" found for row'
            return False
        finally:
            worker.execute("SELECT refold.ensure_segments()")
        return True

    with connect_as(database_url, "refold_worker", autocommit=True) as worker:
        assert brought("a", 1500)
        # Each that is no longer than one before, in whatever order and however many.
        assert all(brought(f"b{at}-", 1500) for at in range(4))
        # What found too little finds at least twice as much the next time.
        attempts = [brought(f"c{at}-", 10_000) for at in range(4)]
        assert attempts in ([False, True, True, True], [False, False, True, True])
        assert log_room.segments(worker)[0].verdict == "warn"
        assert all(brought(f"d{at}-", 10_000) for at in range(4))
        # Whoever knows that he brings more asks first.
        assert not brought("e", 60_000)
        producer.execute("SELECT refold.ensure_room(60000)")
        assert brought("e", 60_000)
        assert len(stored(admin)) == 5 * 1500 + (attempts.count(True) + 4) * 10_000 + 60_000


def test_room_follows_the_rate(admin: Connection) -> None:
    def wanted() -> int:
        row = admin.execute("SELECT reserve FROM refold.room_wanted()").fetchone()
        assert row is not None
        return int(row[0])

    before = wanted()
    admin.execute(
        "INSERT INTO refold.sealed_slices (slice, passed, sealed_at, events, upto, ids, hash)"
        " SELECT n, '3', clock_timestamp() - n * interval '20 s', 9, '3', 0, 0 FROM generate_series(1, 20) AS n"
    )
    # Five slices (of the last 100 seconds) in two minutes, of which a minute's share.
    assert wanted() - before == 5 * (1 << POSITION_BITS) // 2


def test_an_open_writer_makes_nobody_wait(producers: Callable[..., Connection], admin: Connection) -> None:
    """CREATE TABLE … PARTITION OF would queue behind the open transaction, and everybody behind it."""
    small_segments(admin, 40)
    writer, reader, others = producers(), producers(), producers(autocommit=True)
    append(writer, events(3, "open"))
    reader.execute("RESET ROLE")
    reader.execute("SELECT count(*) FROM refold.events")
    others.execute("SET lock_timeout = '1ms'")
    for number in range(10):
        append(others, events(30, f"other{number}-"))
    assert len(ranges(admin)) > 8
    writer.commit()
    assert len(stored(admin)) == 303


def test_a_stale_snapshot_sees_segments_too_late_but_uses_them(
    producers: Callable[..., Connection], admin: Connection
) -> None:
    small_segments(admin, 20)
    stale, other = producers(), producers(autocommit=True)
    stale.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    stale.execute("SELECT 1")
    for number in range(5):
        append(other, events(30, f"other{number}-"))
    append(stale, events(100))
    stale.commit()
    assert len(stored(admin)) == 250


@pytest.mark.parametrize("size", [7, BULK + 1])
def test_eight_appenders_at_once(database_url: str, admin: Connection, size: int) -> None:
    small_segments(admin, 25)
    start = threading.Barrier(8)
    failed: list[BaseException] = []

    def run(appender: int) -> None:
        try:
            with Log(database_url) as log:
                log.append([])
                start.wait(30)
                for batch in range(3):
                    log.append(events(size, f"{appender}-{batch}-"))
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=run, args=(appender,)) for appender in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert len(stored(admin)) == 8 * 3 * size
    assert all(upper - lower == 25 for lower, upper in ranges(admin))


def test_a_segment_is_like_the_log(admin: Connection) -> None:
    """Guards, constraints, indexes and defaults reach segments that are made later too."""
    small_segments(admin, 10)
    append(admin, events(25))

    def shape(table: str) -> list[Any]:
        return [
            admin.execute(query.encode(), (table,)).fetchall()
            for query in (
                "SELECT attname, atttypid, attnotnull, attcollation FROM pg_attribute"
                " WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum",
                "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
                " WHERE conrelid = %s::regclass AND contype = 'c' ORDER BY 1",
                "SELECT indkey, indisprimary, indisunique FROM pg_index"
                " WHERE indrelid = %s::regclass ORDER BY indkey::text",
            )
        ]

    for (segment,) in admin.execute("SELECT segment::text FROM refold.segments").fetchall():
        assert shape(segment) == shape("refold.events")
        guards = admin.execute(
            "SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = %s::regclass ORDER BY 1", (segment,)
        ).fetchall()
        names = ("refuse_change", "refuse_change_of_row", "refuse_forgery", "within_limits")
        assert guards == [(name, "A") for name in names]
        owner = admin.execute(
            "SELECT relowner::regrole::text FROM pg_class WHERE oid = %s::regclass", (segment,)
        ).fetchone()
        assert owner == ("refold_owner",)
    # A default partition would have to be searched, under a lock, whenever a segment is attached.
    assert admin.execute(
        "SELECT partdefid FROM pg_partitioned_table WHERE partrelid = 'refold.events'::regclass"
    ).fetchone() == (0,)
    assert admin.execute(
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 'refold.events'::regclass AND attidentity <> ''"
    ).fetchone() == (0,)


def test_who_finds_the_reserve_used_up_waits_for_its_maker(
    producers: Callable[..., Connection], admin: Connection
) -> None:
    small_segments(admin, 10)
    maker, other = producers(), producers(autocommit=True)
    append(maker, events(28))
    waiting = threading.Thread(target=append, args=(other, events(10, "other")))
    waiting.start()
    wait_until(lambda: somebody_waits(admin))
    maker.commit()
    waiting.join(30)
    assert len(stored(admin)) == 38


def test_a_producer_cannot_ask_for_room_without_end(producers: Callable[..., Connection], admin: Connection) -> None:
    small_segments(admin, 10)
    before = ranges(admin)
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="100 segments"):
        producers(autocommit=True).execute("SELECT refold.ensure_room(1001)")
    assert ranges(admin) == before


def test_burned_positions_make_few_segments(admin: Connection, producer: Connection) -> None:
    """Whoever may insert may draw a position and leave it: that cannot be kept from a producer, so it is made cheap."""
    small_segments(admin, 1000)
    producer.autocommit = True
    for _ in range(60):
        producer.execute("SELECT max(nextval('refold.events_position')) FROM generate_series(1, 5000)")
        admin.execute("SELECT refold.ensure_segments()")
    drawn = admin.execute("SELECT last_value FROM refold.events_position").fetchone()
    made = admin.execute("SELECT count(*) FROM refold.segments").fetchone()
    assert drawn == (300_000,)
    assert made is not None and made[0] < 20
    # Where events come again, segments are as wide as ever.
    append(producer, events(1000, "first"))
    widths = "SELECT upper_position - lower_position FROM refold.segments ORDER BY lower_position DESC LIMIT 1"
    for number in range(300):
        producer.execute("SELECT max(nextval('refold.events_position')) FROM generate_series(1, 1500)")
        append(producer, events(100, f"more{number}-"))
        if admin.execute(widths).fetchone() == (1000,):
            break
    assert admin.execute(widths).fetchone() == (1000,)


def test_burned_slices_fill_no_table(admin: Connection, database_url: str) -> None:
    append(admin, events(10))
    admin.execute("SELECT setval('refold.events_position', %s)", (500 << POSITION_BITS,))
    append(admin, events(10, "after"))
    with connect_as(database_url, "refold_worker", autocommit=True) as worker:
        sealed: set[int] = set()

        def all_of_them() -> bool:
            sealed.update(seal(worker))
            return len(sealed) == 500

        wait_until(all_of_them, 60)
        assert admin.execute("SELECT slice FROM refold.sealed_slices ORDER BY 1").fetchall() == [(0,), (499,)]
        # What is missing there holds nothing, and is estimated so.
        assert admin.execute("SELECT * FROM refold.log_size()").fetchone() == (20, False)
        taken = admin.execute("SELECT * FROM refold.recorded_since('-infinity')").fetchone()
        assert taken in [(number, False) for number in range(10, 21)]
        assert scrub(worker).damage == []
        assert seal(worker) == []
        tamper(
            admin,
            "INSERT INTO refold.events (txid, position, event_id, action, ts)"
            f" SELECT txid, {300 << POSITION_BITS}, 'forged', action, ts FROM refold.events LIMIT 1",
        )
        assert {one.fault for one in scrub(worker).damage} == {"checksums", "unknown"}


@pytest.mark.parametrize("size", [1 << 20, 1_000_000, 1 << POSITION_BITS, 20_000])
@pytest.mark.parametrize("cut", [None, 1_000_001, 9_999], ids=["new", "old", "odd"])
def test_new_segments_end_where_slices_end(admin: Connection, size: int, cut: int | None) -> None:
    """Then the checksums of a segment are those of its slices. Old segments cut slices, and stay as they are."""
    for (segment,) in admin.execute("SELECT segment::text FROM refold.segments").fetchall():
        admin.execute(f"DROP TABLE {segment}".encode())
    if cut is not None:
        admin.execute("SELECT refold.create_segment(1, %s)", (cut,))
    admin.execute("UPDATE refold.settings SET segment_size = %s", (size,))
    for _ in range(4):
        admin.execute("SELECT setval('refold.events_position', greatest(1, refold.log_end() - 1))")
        admin.execute("SELECT refold.ensure_segments()")
    cuts = ranges(admin)
    assert [lower for lower, _ in cuts[1:]] == [upper for _, upper in cuts[:-1]]
    new = cuts if cut is None else cuts[1:]
    assert all(upper % (1 << POSITION_BITS) == 0 and upper - lower >= size - 1 for lower, upper in new)
    append(admin, events(10))
    assert len(stored(admin)) == 10


def test_a_new_deployment_has_segments_of_whole_slices(admin: Connection) -> None:
    assert admin.execute("SELECT segment_size FROM refold.settings").fetchone() == (1 << 20,)
    assert ranges(admin)[:2] == [(1, 1 << 20), (1 << 20, 2 << 20)]


def test_a_segment_is_made_by_the_owner_only(producer: Connection) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        producer.execute("SELECT refold.create_segment(90000000, 90000001)")
