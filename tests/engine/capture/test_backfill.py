"""Backfill beside writers: every row that is there gets exactly one event of its insert, wherever it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import psycopg
import pytest

from refold.errors import InputError
from refold.postgres.connect import connect as connect_as
from refold.store import captures as store
from tests.support.capturing import ORDERS, Captured, Connection
from tests.support.making import small_segments
from tests.support.purging import chill_all, purge
from tests.support.waiting import wait_until

FILL = "INSERT INTO shop.orders (id, status) SELECT n, 'old' FROM generate_series(1, %s) AS n"


def test_rows_from_before_get_an_event_each(captured: Captured, admin: Connection) -> None:
    admin.execute(FILL, (10,))
    captured.deploy(orders=ORDERS)
    admin.execute("INSERT INTO shop.orders (id) VALUES (11)")
    # With an event of its own already, that of its insert is still to come.
    admin.execute("UPDATE shop.orders SET status = 'paid' WHERE id = 5")
    admin.execute("DELETE FROM shop.orders WHERE id = 6")
    done = captured.backfill()
    assert (done.seen, done.added) == (10, 9)
    assert captured.inserts() == [1, 2, 3, 4, 5, 7, 8, 9, 10, 11]
    assert [one for one in captured.ids() if one.endswith(":backfill")] == [
        f"capture:orders:{n}:insert:backfill" for n in (1, 2, 3, 4, 5, 7, 8, 9, 10)
    ]


def test_a_repeated_backfill_adds_nothing(captured: Captured, admin: Connection) -> None:
    admin.execute(FILL, (10,))
    captured.deploy(orders=ORDERS)
    captured.backfill()
    admin.execute("UPDATE shop.orders SET status = 'paid', amount = 9")
    admin.execute("DELETE FROM shop.orders WHERE id = 3")
    admin.execute("INSERT INTO shop.orders (id) VALUES (3)")
    before = captured.ids()
    again = captured.backfill()
    assert (again.seen, again.added) == (10, 0)
    assert captured.ids() == before
    assert captured.rejected() == []


def test_a_row_whose_event_was_purged_gets_no_second_one(
    captured: Captured, admin: Connection, database_url: str
) -> None:
    small_segments(admin, 16_384)
    admin.execute(FILL, (10,))
    captured.deploy(orders=ORDERS)
    admin.execute("INSERT INTO shop.orders (id) VALUES (11), (12)")
    assert captured.backfill().added == 10
    admin.execute("SELECT setval('refold.events_position', 16384, false)")
    admin.execute("INSERT INTO shop.orders (id) VALUES (13)")
    purge(admin)
    with connect_as(database_url, "refold_worker", autocommit=True) as worker:
        chill_all(worker)
    again = captured.backfill()
    assert (again.seen, again.added) == (13, 0)
    # A row that is not there any more was inserted once more since; the backfill of the first life stays refused.
    admin.execute("DELETE FROM shop.orders WHERE id = 11")
    admin.execute("INSERT INTO shop.orders (id) VALUES (11)")
    assert captured.backfill().added == 0
    assert captured.inserts() == [11, 13]


def test_a_bad_row_is_set_aside_once(captured: Captured, admin: Connection) -> None:
    admin.execute(FILL, (10,))
    admin.execute("UPDATE shop.orders SET amount = 0 WHERE id = 4")
    captured.deploy(orders=ORDERS)
    captured.backfill()
    captured.backfill(step=7)
    assert captured.rejected() == [("capture:orders", "division by zero")]
    assert captured.inserts() == [1, 2, 3, 5, 6, 7, 8, 9, 10]
    # And comes with the next one when it is mended.
    admin.execute("ALTER TABLE shop.orders DISABLE TRIGGER USER; UPDATE shop.orders SET amount = 1")
    assert captured.backfill().added == 1


def test_a_row_that_is_deleted_before_it_is_read(captured: Captured, admin: Connection) -> None:
    admin.execute(FILL, (10,))
    captured.deploy(orders=ORDERS)
    with connect_as(captured.url, "refold_capture", autocommit=True) as conn:
        store.begin_backfill(conn, captured.capture())
    admin.execute("DELETE FROM shop.orders WHERE id IN (2, 9)")
    admin.execute("INSERT INTO shop.orders (id) VALUES (9)")
    assert sorted(captured.events()) == sorted(
        [(key, *rest) for key in "29" for rest in (("insert", "order old"), ("delete", "order deleted"))]
        + [("9", "insert", "order new")]
    )
    captured.backfill()
    # Of the row that came again there is an event already: both lives of it are in the log.
    assert captured.inserts() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 10]


@pytest.mark.parametrize("first", ["backfill", "delete"])
def test_a_row_is_deleted_while_it_is_read(
    captured: Captured, admin: Connection, connect: Callable[..., Connection], first: str
) -> None:
    admin.execute(FILL, (2,))
    captured.deploy(orders=ORDERS)
    filling = connect_as(captured.url, "refold_capture", autocommit=True)
    store.begin_backfill(filling, captured.capture())
    deleting = connect()

    def finish() -> None:
        deleting.execute(delete)
        deleting.commit()

    step = "SELECT refold_captures.orders_backfill(NULL, 10)"
    delete = "DELETE FROM shop.orders WHERE id = 1"
    if first == "backfill":
        filling.execute("BEGIN")
        filling.execute(step.encode())
        other = threading.Thread(target=finish)
    else:
        deleting.execute(delete)
        other = threading.Thread(target=lambda: captured.backfill())
    other.start()
    wait_until(
        lambda: (
            admin.execute(
                "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid <> pg_backend_pid()"
            ).rowcount
            > 0
        )
    )
    if first == "backfill":
        filling.execute("COMMIT")
    else:
        deleting.commit()
    other.join()
    filling.close()
    captured.backfill()
    assert captured.inserts() == [1, 2]
    assert [key for key, operation, _ in captured.events() if operation == "delete"] == ["1"]


def test_a_writer_from_before_the_trigger_is_waited_for(
    captured: Captured, admin: Connection, connect: Callable[..., Connection]
) -> None:
    early = connect()
    early.execute("INSERT INTO shop.orders (id) VALUES (1)")
    deploying = threading.Thread(target=captured.deploy, kwargs={"orders": ORDERS})
    deploying.start()
    wait_until(
        lambda: (
            admin.execute("SELECT FROM pg_locks WHERE relation = 'shop.orders'::regclass AND NOT granted").rowcount > 0
        )
    )
    early.commit()
    deploying.join()
    late = connect()
    late.execute("INSERT INTO shop.orders (id) VALUES (2)")
    captured.backfill()
    late.commit()
    captured.backfill()
    assert captured.inserts() == [1, 2]


def test_what_cannot_be_backfilled_says_so(captured: Captured, admin: Connection) -> None:
    captured.deploy(orders=ORDERS)
    store.pause(admin, captured.capture())
    with pytest.raises(InputError, match="orders is paused"):
        captured.backfill()
    store.resume(admin, captured.capture())
    captured.deploy(orders=ORDERS.replace('"insert", ', ""))
    with pytest.raises(InputError, match="does not capture inserts"):
        captured.backfill()
    admin.execute("ALTER TABLE shop.orders DROP CONSTRAINT orders_pkey")
    captured.deploy(orders=ORDERS)
    with pytest.raises(InputError, match="has no primary key") as refused:
        captured.backfill()
    assert 'id = ["…"]' in str(refused.value.remedy)
    admin.execute(FILL, (3,))
    admin.execute("CREATE UNIQUE INDEX ON shop.orders (id); ALTER TABLE shop.orders ALTER id SET NOT NULL")
    captured.deploy(orders='id = ["id"]\n' + ORDERS)
    assert captured.backfill().seen == 3


def test_a_pause_ends_beside_an_open_writer(
    captured: Captured, admin: Connection, connect: Callable[..., Connection]
) -> None:
    """The writer has met the pause; the backfill waits for it, or its row would never have an event."""
    captured.deploy(orders=ORDERS)
    store.pause(admin, captured.capture())
    writer = connect()
    admin.execute("INSERT INTO shop.orders (id) VALUES (1)")
    writer.execute("INSERT INTO shop.orders (id) VALUES (2)")
    store.resume(admin, captured.capture())
    filling = threading.Thread(target=captured.backfill)
    filling.start()
    wait_until(
        lambda: (
            admin.execute("SELECT FROM pg_locks WHERE relation = 'shop.orders'::regclass AND NOT granted").rowcount > 0
        )
    )
    writer.commit()
    filling.join()
    assert captured.inserts() == [1, 2]
    assert store.gaps(admin) == {}


def test_a_transaction_with_an_old_snapshot_meets_a_pause_that_is_over(
    captured: Captured, admin: Connection, connect: Callable[..., Connection]
) -> None:
    captured.deploy(orders=ORDERS)
    store.pause(admin, captured.capture())
    old = connect()
    old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    old.execute("SELECT 1 FROM shop.orders")
    store.resume(admin, captured.capture())
    captured.backfill()
    old.execute("INSERT INTO shop.orders (id) VALUES (1)")
    old.commit()
    # No statement goes without an event unrecorded.
    assert store.gaps(admin)[captured.capture().capture_id].statements == 1
    captured.backfill()
    assert captured.inserts() == [1]
    assert store.gaps(admin) == {}


def test_a_gap_behind_the_backfill_stays_open(captured: Captured, admin: Connection) -> None:
    admin.execute(FILL, (5,))
    captured.deploy(orders=ORDERS)
    with connect_as(captured.url, "refold_capture", autocommit=True) as conn:
        open_one = store.begin_backfill(conn, captured.capture())
        store.step(conn, open_one, 5, 0, ["5"])
    store.pause(admin, captured.capture())
    admin.execute("INSERT INTO shop.orders (id) VALUES (0)")
    store.resume(admin, captured.capture())
    captured.backfill()
    assert store.gaps(admin)[captured.capture().capture_id].statements == 1
    captured.backfill()
    assert captured.inserts() == [0, 1, 2, 3, 4, 5]
    assert store.gaps(admin) == {}


CRASHES = ["backfill_begun", *(f"{point}:{n}" for point in ("rows", "recorded", "stepped") for n in (1, 2, 4))]


@pytest.mark.slow
@pytest.mark.parametrize("point", CRASHES)
def test_killed_at_every_step_beside_writers(captured: Captured, admin: Connection, point: str) -> None:
    admin.execute(FILL, (70,))
    captured.deploy(orders=ORDERS)
    over = threading.Event()

    def write() -> None:
        with psycopg.connect(captured.url, autocommit=True) as conn:
            number = 0
            while not over.is_set():
                number += 1
                conn.execute("INSERT INTO shop.orders (id) VALUES (%s)", (1000 + number,))
                conn.execute("UPDATE shop.orders SET status = %s WHERE id = %s", (str(number), 1 + number % 70))
                if number % 5 == 0:
                    conn.execute("DELETE FROM shop.orders WHERE id = %s", (1000 + number,))
                if number % 7 == 0 and number < 400:
                    conn.execute("DELETE FROM shop.orders WHERE id = %s", (number % 70,))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        name = point if point.startswith("backfill") else f"backfill_{point}"
        command = [sys.executable, "-m", "refold", "captures", "backfill", "orders", "--step", "20"]
        environment = {**os.environ, "REFOLD_DATABASE_URL": captured.url}
        killed = subprocess.run(command, env={**environment, "REFOLD_CRASH_AT": name}, capture_output=True, timeout=60)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        done = subprocess.run(command, env=environment, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
    finally:
        over.set()
        writer.join()
    found = captured.inserts()
    assert len(found) == len(set(found))
    there = {key for (key,) in admin.execute("SELECT id FROM shop.orders").fetchall()}
    assert there <= set(found)
    assert captured.rejected() == []
    captured.backfill(step=1000)
    assert captured.inserts() == found
