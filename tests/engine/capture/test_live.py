"""What becomes of the writes of an application: each operation, good and bad rows, hostile sessions, 2PC."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from refold import append
from refold.service.worker.listener import KEY
from refold.store import captures as store
from tests.conftest import ServerUnderTest
from tests.support import contracts
from tests.support.capturing import ORDERS, Captured, Connection
from tests.support.logins import login

INSERT_ONLY = 'table = "shop.orders"\naction = "\'order\'"\ntime = "new.created_at"\n'


def test_insert_update_and_delete(captured: Captured, admin: Connection) -> None:
    captured.deploy(orders=ORDERS)
    admin.execute("INSERT INTO shop.orders (id, customer, amount) VALUES (1, 7, 4), (2, NULL, 5)")
    admin.execute("UPDATE shop.orders SET status = 'paid' WHERE id = 1")
    admin.execute("DELETE FROM shop.orders WHERE id = 1")
    rows = admin.execute(
        "SELECT split_part(event_id, ':', 4), user_id, action, ts::text, metadata FROM refold.events ORDER BY position"
    ).fetchall()
    at = "2026-03-01 09:00:00+00"
    assert rows == [
        ("insert", "7", "order new", at, {"share": 25}),
        ("insert", None, "order new", at, {"share": 20}),
        ("update", "7", "order paid", at, {"from": "new", "to": "paid"}),
        ("delete", "7", "order deleted", at, {"share": 25}),
    ]


@pytest.mark.parametrize("number", [1, 15, 16, 40, 2500])
def test_statements_of_every_size(captured: Captured, admin: Connection, number: int) -> None:
    captured.deploy(orders=ORDERS)
    admin.execute("INSERT INTO shop.orders (id) SELECT generate_series(1, %s)", (number,))
    assert captured.inserts() == list(range(1, number + 1))
    assert captured.rejected() == []
    admin.execute("UPDATE shop.orders SET status = id::text")
    admin.execute("DELETE FROM shop.orders")
    by_operation = [operation for _, operation, _ in captured.events()]
    assert by_operation == ["insert"] * number + ["update"] * number + ["delete"] * number
    # Old and new rows belong together.
    assert admin.execute(
        "SELECT count(*) FROM refold.events WHERE event_id LIKE '%:update:%'"
        " AND metadata ->> 'to' = split_part(event_id, ':', 3)"
    ).fetchone() == (number,)


def test_only_changes_of_the_columns_that_matter(captured: Captured, admin: Connection) -> None:
    captured.deploy(orders=ORDERS)
    admin.execute("INSERT INTO shop.orders (id) VALUES (1), (2)")
    admin.execute("UPDATE shop.orders SET note = '{}'")
    admin.execute("UPDATE shop.orders SET status = status")
    assert len(captured.events()) == 2
    admin.execute("UPDATE shop.orders SET status = CASE id WHEN 1 THEN 'paid' ELSE status END")
    assert captured.events()[2:] == [("1", "update", "order paid")]


def test_a_value_that_comes_back_is_an_event_of_its_own(captured: Captured, admin: Connection) -> None:
    captured.deploy(orders=ORDERS)
    admin.execute("INSERT INTO shop.orders (id, status) VALUES (1, 'a')")
    for status in ("b", "a", "b", "a"):
        admin.execute("UPDATE shop.orders SET status = %s", (status,))
    assert [action for _, _, action in captured.events()] == [f"order {one}" for one in "ababa"]
    with admin.transaction():
        for status in ("b", "a"):
            admin.execute("UPDATE shop.orders SET status = %s", (status,))
    assert len(captured.events()) == 7


def test_a_row_that_is_deleted_and_comes_again(captured: Captured, admin: Connection) -> None:
    captured.deploy(orders=ORDERS)
    for _ in range(3):
        admin.execute("INSERT INTO shop.orders (id) VALUES (1)")
        admin.execute("DELETE FROM shop.orders")
    with admin.transaction():
        for _ in range(2):
            admin.execute("INSERT INTO shop.orders (id) VALUES (1)")
            admin.execute("DELETE FROM shop.orders")
    assert [operation for _, operation, _ in captured.events()] == ["insert", "delete"] * 5
    assert len(set(captured.ids())) == 10


def test_the_writer_rolls_back_in_whole_or_in_part(captured: Captured, admin: Connection) -> None:
    captured.deploy(orders=ORDERS)
    with admin.transaction(force_rollback=True):
        admin.execute("INSERT INTO shop.orders (id) VALUES (1)")
    assert captured.events() == []
    with admin.transaction():
        admin.execute("INSERT INTO shop.orders (id) VALUES (1)")
        for _ in range(3):
            with admin.transaction(force_rollback=True):
                admin.execute("INSERT INTO shop.orders (id) SELECT generate_series(2, 40)")
        admin.execute("INSERT INTO shop.orders (id) VALUES (2)")
    assert captured.inserts() == [1, 2]


@pytest.mark.parametrize("number", [3, 30])
def test_a_bad_row_costs_neither_the_write_nor_its_neighbours(
    captured: Captured, admin: Connection, number: int
) -> None:
    captured.deploy(orders=ORDERS)
    admin.execute(
        "INSERT INTO shop.orders (id, status, amount, customer) SELECT n, CASE n WHEN 1 THEN NULL ELSE 'new' END,"
        " CASE n WHEN 2 THEN 0 ELSE 1 END, n FROM generate_series(1, %s) AS n",
        (number,),
    )
    assert admin.execute("SELECT count(*) FROM shop.orders").fetchone() == (number,)
    assert captured.inserts() == list(range(3, number + 1))
    assert captured.rejected() == [("capture:orders", "action: is NULL"), ("capture:orders", "division by zero")]
    ((raw,),) = admin.execute("SELECT raw FROM refold.rejected WHERE reason = 'division by zero'").fetchall()
    assert (json.loads(raw)["id"], json.loads(raw)["amount"]) == (2, 0)


@pytest.mark.parametrize(
    ("field", "expression", "reason"),
    [
        ("user", "repeat('x', row.customer)", "user: must have 1 to 255 characters, not 256"),
        ("time", "row.created_at + interval '9000 years'", "time: must be between the years 1 and 9999"),
        ("time", "nullif(row.created_at, row.created_at)", "time: is NULL"),
        ("metadata", "to_jsonb(row.customer)", "metadata: must be an object, not a number"),
        ("metadata", "jsonb_build_object('x', repeat('y', 2000000))", "metadata: is larger than"),
        ("metadata", "row.note::jsonb", "unsupported Unicode escape sequence"),
        ("user", "row.status::integer", "invalid input syntax for type integer"),
    ],
)
def test_what_the_log_refuses_is_set_aside(
    captured: Captured, admin: Connection, field: str, expression: str, reason: str
) -> None:
    given = {"user": '"NULL"', "time": '"row.created_at"', "metadata": "\"'{}'::jsonb\"", field: f'"{expression}"'}
    text = "".join(f"{name} = {value}\n" for name, value in given.items())
    captured.deploy(orders=f'table = "shop.orders"\naction = "\'x\'"\n{text}')
    for rows in (1, 20):
        admin.execute("DELETE FROM shop.orders")
        admin.execute(
            "INSERT INTO shop.orders (id, customer, note) SELECT n, 256, %s FROM generate_series(1, %s) AS n",
            (r'{"a": "\u0000"}', rows),
        )
        assert admin.execute("SELECT count(*) FROM shop.orders").fetchone() == (rows,)
    assert captured.events() == []
    assert len(captured.rejected()) == 20
    assert all(found.startswith(reason) for _, found in captured.rejected())


def test_upserts_merge_and_copy(captured: Captured, admin: Connection) -> None:
    captured.deploy(orders=ORDERS)
    upsert = "INSERT INTO shop.orders (id) VALUES (1), (2) ON CONFLICT (id) DO UPDATE SET status = 'again'"
    admin.execute("INSERT INTO shop.orders (id) VALUES (1)")
    admin.execute(upsert.encode())
    assert sorted(captured.events()[1:]) == [("1", "update", "order again"), ("2", "insert", "order new")]
    admin.execute("INSERT INTO shop.orders (id) VALUES (1) ON CONFLICT DO NOTHING")
    assert len(captured.events()) == 3
    admin.execute(
        "MERGE INTO shop.orders AS o USING generate_series(2, 3) AS n ON o.id = n"
        " WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id) VALUES (n)"
    )
    assert sorted(captured.events()[3:]) == [("2", "delete", "order deleted"), ("3", "insert", "order new")]
    with admin.cursor() as cursor, cursor.copy("COPY shop.orders (id) FROM STDIN") as copy:
        for number in range(100, 150):
            copy.write_row((number,))
    assert captured.inserts()[-50:] == list(range(100, 150))


def test_truncate_is_refused_recorded_or_nothing(captured: Captured, admin: Connection) -> None:
    captured.deploy(orders=ORDERS)
    admin.execute("INSERT INTO shop.orders (id) VALUES (1)")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="the capture orders records deleted rows"):
        admin.execute("TRUNCATE shop.orders")
    with_truncate = ORDERS.replace('"delete"]', '"delete", "truncate"]') + "[truncate]\naction = \"'all gone'\"\n"
    captured.deploy(orders=with_truncate)
    admin.execute("TRUNCATE shop.orders")
    assert captured.events()[1:] == [("", "truncate", "all gone")]
    captured.deploy(orders=INSERT_ONLY)
    admin.execute("TRUNCATE shop.orders")
    assert len(captured.events()) == 2


def test_partitions(captured: Captured, admin: Connection) -> None:
    admin.execute(
        """
        DROP TABLE shop.orders;
        CREATE TABLE shop.orders (id bigint, customer integer, status text DEFAULT 'new', amount numeric DEFAULT 1,
            created_at timestamptz DEFAULT '2026-03-01', note json, PRIMARY KEY (id)) PARTITION BY RANGE (id);
        CREATE TABLE shop.first PARTITION OF shop.orders FOR VALUES FROM (0) TO (100);
        -- Other columns in another order.
        CREATE TABLE shop.second (note json, gone text, status text DEFAULT 'new', amount numeric DEFAULT 1,
            customer integer, created_at timestamptz DEFAULT '2026-03-01', id bigint PRIMARY KEY);
        ALTER TABLE shop.second DROP COLUMN gone;
        ALTER TABLE shop.orders ATTACH PARTITION shop.second FOR VALUES FROM (100) TO (200);
        """
    )
    captured.deploy(orders=ORDERS)
    admin.execute("INSERT INTO shop.orders (id) VALUES (1), (101)")
    admin.execute("INSERT INTO shop.orders (id) SELECT generate_series(110, 140)")
    # Straight to a partition, where no trigger of the whole table fires.
    admin.execute("INSERT INTO shop.second (id) VALUES (102)")
    admin.execute("UPDATE shop.second SET status = 'paid' WHERE id = 102")
    assert captured.inserts() == [1, 101, 102, *range(110, 141)]
    # To another partition.
    admin.execute("UPDATE shop.orders SET id = 150, status = 'moved' WHERE id = 1")
    assert captured.events()[-2:] == [("102", "update", "order paid"), ("150", "update", "order moved")]
    assert captured.rejected() == []
    # A new partition has its triggers after the next deploy.
    admin.execute("CREATE TABLE shop.third PARTITION OF shop.orders FOR VALUES FROM (200) TO (300)")
    admin.execute("INSERT INTO shop.orders (id) VALUES (201)")
    admin.execute("INSERT INTO shop.third (id) VALUES (202)")
    captured.deploy()
    admin.execute("INSERT INTO shop.third (id) VALUES (203)")
    assert captured.inserts()[-2:] == [201, 203]
    captured.backfill()
    assert captured.inserts()[-3:] == [201, 202, 203]


PARTITIONS = """
DROP TABLE shop.orders;
CREATE TABLE shop.orders (id bigint, customer integer, status text DEFAULT 'new', amount numeric DEFAULT 1,
    created_at timestamptz DEFAULT '2026-03-01', note json, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE shop.first PARTITION OF shop.orders FOR VALUES FROM (0) TO (100);
CREATE TABLE shop.second PARTITION OF shop.orders FOR VALUES FROM (100) TO (200)
"""
KEEPS_OUT = """
CREATE FUNCTION shop.keep_out() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN IF NEW.status LIKE '%out' THEN RETURN NULL; END IF; RETURN NEW; END $$;
CREATE TRIGGER keep_out BEFORE INSERT OR UPDATE ON shop.second FOR EACH ROW EXECUTE FUNCTION shop.keep_out()
"""


def pairs(admin: Connection) -> list[tuple[Any, ...]]:
    """Key, old and new status of the events of updates."""
    return admin.execute(
        "SELECT split_part(event_id, ':', 3)::integer, metadata ->> 'from', metadata ->> 'to' FROM refold.events"
        " WHERE event_id LIKE '%:update:%' ORDER BY 1"
    ).fetchall()


@pytest.mark.parametrize("number", [1, 2, 50])
def test_an_update_that_moves_rows_between_partitions(captured: Captured, admin: Connection, number: int) -> None:
    admin.execute(PARTITIONS.encode())
    captured.deploy(orders=ORDERS)
    admin.execute("INSERT INTO shop.orders (id, status) SELECT n, 's' || n FROM generate_series(1, %s) AS n", (number,))
    admin.execute("INSERT INTO shop.orders (id, status) VALUES (180, 's180')")
    # Back and forth: each new row belongs to the old one that it was.
    admin.execute("UPDATE shop.orders SET id = (id + 100) % 200, status = status || '-'")
    assert pairs(admin) == sorted(
        [(80, "s180", "s180-"), *((n + 100, f"s{n}", f"s{n}-") for n in range(1, number + 1))]
    )
    assert captured.rejected() == []


@pytest.mark.parametrize("key", [True, False])
def test_a_trigger_of_the_other_partition_keeps_a_moved_row_out(
    captured: Captured, admin: Connection, key: bool
) -> None:
    """Then the old rows are more than the new ones; one in the middle, so that those behind it would go astray."""
    admin.execute(f"{PARTITIONS}; {KEEPS_OUT}".encode())
    if not key:
        admin.execute("ALTER TABLE shop.orders DROP CONSTRAINT orders_pkey")
    captured.deploy(orders=ORDERS)
    admin.execute("INSERT INTO shop.orders (id, status) SELECT n, 's' || n FROM generate_series(1, 5) AS n")
    update = "UPDATE shop.orders SET id = CASE id WHEN {} THEN 100 + id ELSE id END, status = status || '-out'"
    admin.execute(update.format(3).encode())
    assert pairs(admin) == ([(n, f"s{n}", f"s{n}-out") for n in (1, 2, 4, 5)] if key else [])
    why = "an UPDATE moved rows to other partitions, where a trigger kept some out: what "
    before, after = f"{why}became of this row is not known", f"{why}this row was before is not known"
    told = admin.execute("SELECT (raw::json ->> 'id')::integer, reason FROM refold.rejected").fetchall()
    alone = [(3, before)]
    assert sorted(told) == (
        alone if key else sorted([*((n, before) for n in range(1, 6)), *((n, after) for n in (1, 2, 4, 5))])
    )
    # Alone in its statement.
    admin.execute(f"{update.format(4)} WHERE id = 4".encode())
    assert admin.execute("SELECT count(*) FROM shop.orders").fetchone() == (3,)
    rows = admin.execute("SELECT reason FROM refold.rejected WHERE raw::json ->> 'status' = 's4-out'").fetchall()
    assert rows == [(before,)]


def test_merge_that_moves_rows_shows_them_to_no_trigger(captured: Captured, admin: Connection) -> None:
    """A limit of PostgreSQL, which the docs name: if this fails, it is mended there."""
    admin.execute(PARTITIONS.encode())
    captured.deploy(orders=ORDERS)
    admin.execute("INSERT INTO shop.orders (id, status) SELECT n, 's' || n FROM generate_series(1, 3) AS n")
    admin.execute(
        "MERGE INTO shop.orders AS o USING generate_series(1, 2) AS n ON o.id = n"
        " WHEN MATCHED THEN UPDATE SET id = o.id + 100, status = 'moved'"
    )
    assert admin.execute("SELECT count(*) FROM shop.second").fetchone() == (2,)
    assert pairs(admin) == []


def test_rows_that_move_beside_one_that_is_kept_out(captured: Captured, admin: Connection) -> None:
    """Their keys have changed: nobody can say which they were."""
    admin.execute(f"{PARTITIONS}; {KEEPS_OUT}".encode())
    captured.deploy(orders=ORDERS)
    admin.execute("INSERT INTO shop.orders (id, status) SELECT n, 's' || n FROM generate_series(1, 5) AS n")
    admin.execute(
        "UPDATE shop.orders SET id = CASE WHEN id < 5 THEN 100 + id ELSE id END,"
        " status = CASE id WHEN 2 THEN 'out' ELSE 'moved' END"
    )
    assert pairs(admin) == [(5, "s5", "moved")]
    rows = admin.execute("SELECT (raw::json ->> 'id')::integer FROM refold.rejected ORDER BY 1").fetchall()
    assert [key for (key,) in rows] == [1, 2, 3, 4, 101, 103, 104]


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_a_trigger_keeps_rows_from_being_updated(captured: Captured, admin: Connection, kept: int) -> None:
    admin.execute(KEEPS_OUT.replace("shop.second", "shop.orders").encode())
    captured.deploy(orders=ORDERS)
    admin.execute("INSERT INTO shop.orders (id, status) SELECT n, 's' || n FROM generate_series(1, 3) AS n")
    admin.execute("UPDATE shop.orders SET status = status || CASE id WHEN %s THEN '-out' ELSE '-' END", (kept,))
    assert pairs(admin) == [(n, f"s{n}", f"s{n}-") for n in (1, 2, 3) if n != kept]
    assert captured.rejected() == []


def test_a_table_without_a_key(captured: Captured, admin: Connection) -> None:
    admin.execute("ALTER TABLE shop.orders DROP CONSTRAINT orders_pkey")
    captured.deploy(orders=ORDERS)
    admin.execute("INSERT INTO shop.orders (id) VALUES (1), (1)")
    admin.execute("UPDATE shop.orders SET status = 'x'")
    admin.execute("DELETE FROM shop.orders")
    assert [operation for _, operation, _ in captured.events()] == ["insert"] * 2 + ["update"] * 2 + ["delete"] * 2


def test_keys_of_every_kind(captured: Captured, admin: Connection) -> None:
    admin.execute("CREATE TABLE shop.things (a text, b timestamptz, c integer, PRIMARY KEY (a, b, c))")
    captured.deploy(things='table = "shop.things"\naction = "\'thing\'"\ntime = "\'2026-01-01Z\'::timestamptz"\n')
    keys = ["x:insert:", "x", "x,y", "%3A", "~" + "0" * 32, "l" * 3000, "l" * 3001, "é☃", ""]
    for key in keys:
        admin.execute("INSERT INTO shop.things VALUES (%s, now(), 1)", (key,))
    admin.execute("ALTER TABLE shop.things DISABLE TRIGGER USER")
    for key in keys:
        admin.execute("INSERT INTO shop.things VALUES (%s, now(), 2)", (key,))
    admin.execute("ALTER TABLE shop.things ENABLE ALWAYS TRIGGER refold_things_insert")
    assert captured.rejected() == []
    done = captured.backfill("things", step=4)
    assert (done.seen, done.added) == (2 * len(keys), len(keys))
    assert len(set(captured.ids())) == 2 * len(keys)
    assert captured.backfill("things").added == 0


def test_nobody_else_may_use_an_id_of_a_capture(captured: Captured, admin: Connection, producer: Connection) -> None:
    producer.autocommit = True
    mine = "capture:orders:17:insert:backfill"
    (python,) = append(producer, [{"id": mine, "action": "x", "ts": 0}])
    assert (python.answer, "reserved" in (python.reason or "")) == ("invalid", True)
    ((answer, reason),) = producer.execute(
        "SELECT answer, reason FROM refold.append(%s)", (json.dumps([{"id": mine, "action": "x", "ts": 0}]),)
    ).fetchall()
    assert (answer, reason.startswith('id: must not begin with "capture:"')) == ("invalid", True)
    insert = "INSERT INTO refold.events (event_id, action, ts) VALUES (%s, 'x', now())"
    for conn in (producer, admin):
        with pytest.raises(psycopg.errors.CheckViolation, match="reserved for events of captured tables"):
            conn.execute(insert, (mine,))
    with pytest.raises(psycopg.errors.CheckViolation, match="reserved"):
        producer.execute(
            "SELECT refold.admit_parsed(ARRAY[ROW(1, %s, NULL, 'x', now(), '{}', 1, NULL)::refold.parsed_event])",
            (mine,),
        )
    captured.deploy(orders=ORDERS)
    admin.execute("INSERT INTO shop.orders (id) VALUES (17)")
    assert captured.inserts() == [17]


def test_a_writer_without_any_role_and_with_hostile_settings(
    captured: Captured, server: ServerUnderTest, admin: Connection
) -> None:
    every = 'action = "\'x\'"\ntime = "row.created_at"\nmetadata = "jsonb_build_object(\'at\', row.created_at::text)"\n'
    captured.deploy(orders=f'table = "shop.orders"\n{every}')
    with login(server, admin) as url, psycopg.connect(url, autocommit=True) as conn:
        name = psycopg.sql.Identifier(conn.info.user)
        admin.execute(psycopg.sql.SQL("GRANT USAGE ON SCHEMA shop TO {}").format(name))
        admin.execute(psycopg.sql.SQL("GRANT INSERT ON shop.orders TO {}").format(name))
        admin.execute(psycopg.sql.SQL("GRANT TEMPORARY ON DATABASE {} TO {}").format(
            psycopg.sql.Identifier(admin.info.dbname), name))  # fmt: skip
        conn.execute(
            """
            SET search_path = pg_temp; SET datestyle = 'SQL, DMY'; SET timezone = 'Asia/Kolkata';
            SET standard_conforming_strings = off; SET refold.room_until = 'x'; SET refold.restoring = on;
            CREATE TEMPORARY TABLE events (id integer); CREATE TEMPORARY TABLE new_rows (id integer);
            """
        )
        conn.execute("INSERT INTO shop.orders (id) VALUES (1)")
        conn.execute("INSERT INTO shop.orders (id) SELECT generate_series(2, 30)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("SELECT * FROM refold.events")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("SELECT refold_captures.orders_backfill(NULL, 1)")
    assert captured.inserts() == list(range(1, 31))
    assert admin.execute("SELECT DISTINCT metadata ->> 'at' FROM refold.events").fetchall() == [
        ("2026-03-01 09:00:00+00",)
    ]


def test_a_session_that_acts_as_a_replica_is_captured_too(captured: Captured, admin: Connection) -> None:
    captured.deploy(orders=ORDERS)
    admin.execute("SET session_replication_role = replica")
    admin.execute("INSERT INTO shop.orders (id) VALUES (1)")
    assert captured.inserts() == [1]


def test_a_statement_without_rows_writes_nothing(captured: Captured, admin: Connection) -> None:
    captured.deploy(orders=ORDERS)
    store.pause(admin, captured.capture())
    with admin.transaction():
        admin.execute("UPDATE shop.orders SET status = 'paid'")
        admin.execute("DELETE FROM shop.orders")
        admin.execute("INSERT INTO shop.orders SELECT * FROM shop.orders")
        assert admin.execute("SELECT pg_current_xact_id_if_assigned()").fetchone() == (None,)
    assert store.gaps(admin)[captured.capture().capture_id].statements == 0


@pytest.mark.parametrize("rows", [1, 3, 30])
def test_columns_named_like_variables_of_the_functions(captured: Captured, admin: Connection, rows: int) -> None:
    names = ["many", "paused", "wrong", "made", "xid", "at", "one", "pair", "e", "m", "backfilling"]
    columns = ", ".join(f"{name} text DEFAULT '{name}'" for name in names)
    admin.execute(f"CREATE TABLE shop.odd (id integer PRIMARY KEY, {columns})".encode())
    values = " || ".join(f"row.{name}" for name in names)
    captured.deploy(odd=f'table = "shop.odd"\noperations = ["insert", "update", "delete"]\naction = "{values}"\n')
    admin.execute("INSERT INTO shop.odd (id) SELECT generate_series(1, %s)", (rows,))
    admin.execute("UPDATE shop.odd SET many = 'M'")
    admin.execute("DELETE FROM shop.odd")
    told = "".join(names)
    assert [action for _, _, action in captured.events()] == [told] * rows + [f"M{told[4:]}"] * 2 * rows
    assert captured.rejected() == []


@pytest.mark.parametrize("rows", [1, 3, 30])
def test_a_literal_over_several_lines(captured: Captured, admin: Connection, rows: int) -> None:
    captured.deploy(
        orders='table = "shop.orders"\noperations = ["insert", "update", "delete"]\n'
        + 'action = """\n\'an\n  order\n\' || -- it\'s\n\'made\'"""\n'
    )
    admin.execute("INSERT INTO shop.orders (id) SELECT generate_series(1, %s)", (rows,))
    admin.execute("UPDATE shop.orders SET status = 'paid'")
    admin.execute("DELETE FROM shop.orders")
    assert [action for _, _, action in captured.events()] == ["an\n  order\nmade"] * 3 * rows
    assert captured.rejected() == []


def test_two_captures_of_one_table(captured: Captured, admin: Connection) -> None:
    captured.deploy(orders=ORDERS, placed=INSERT_ONLY)
    admin.execute("INSERT INTO shop.orders (id) VALUES (1)")
    assert sorted(one.split(":")[1] for one in captured.ids()) == ["orders", "placed"]


def test_a_column_that_an_expression_needs_is_dropped(captured: Captured, admin: Connection) -> None:
    captured.deploy(orders=ORDERS)
    admin.execute("ALTER TABLE shop.orders DROP COLUMN customer, ADD COLUMN extra text")
    for ids in ("1, 1", "2, 30"):
        admin.execute(f"INSERT INTO shop.orders (id) SELECT generate_series({ids})".encode())
    assert admin.execute("SELECT count(*) FROM shop.orders").fetchone() == (30,)
    assert captured.events() == []
    assert len(captured.rejected()) == 30
    captured.deploy(orders=ORDERS.replace('user = "row.customer"', ""))
    captured.backfill()
    assert captured.inserts() == list(range(1, 31))


def test_prepared_transactions(captured: Captured, admin: Connection, connect: Callable[..., Connection]) -> None:
    captured.deploy(orders=ORDERS)
    sleeper = connect(autocommit=True)
    # A worker that sleeps.
    sleeper.execute("SELECT pg_advisory_lock_shared(%s)", (KEY,))

    def prepare(number: int) -> None:
        admin.execute("BEGIN")
        try:
            admin.execute("INSERT INTO shop.orders (id) VALUES (%s)", (number,))
            admin.execute(f"PREPARE TRANSACTION 'capture-{number}'".encode())
        except psycopg.Error:
            admin.execute("ROLLBACK")
            raise

    with pytest.raises(psycopg.errors.FeatureNotSupported):
        prepare(1)
    captured.deploy(orders="two_phase = true\n" + ORDERS)
    prepare(2)
    assert captured.events() == []
    admin.execute("COMMIT PREPARED 'capture-2'")
    prepare(3)
    admin.execute("ROLLBACK PREPARED 'capture-3'")
    assert captured.inserts() == [2]


PRIVILEGE = "REVOKE INSERT (event_id) ON refold.events FROM refold_capture"


def test_the_log_cannot_take_the_event(captured: Captured, admin: Connection) -> None:
    """Unless it is told to pause, a capture makes the write fail: no row is without its event."""
    captured.deploy(orders=ORDERS)
    admin.execute(PRIVILEGE.encode())
    for last in (1, 30):
        with pytest.raises(psycopg.errors.InsufficientPrivilege) as refused:
            admin.execute("INSERT INTO shop.orders (id) SELECT generate_series(1, %s)", (last,))
        assert "refold_captures.orders_insert" in (refused.value.diag.context or "")
    assert admin.execute("SELECT count(*) FROM shop.orders").fetchone() == (0,)
    assert captured.rejected() == []


def test_a_capture_pauses_and_a_backfill_closes_the_gap(captured: Captured, admin: Connection) -> None:
    captured.deploy(orders=ORDERS.replace("columns", 'on_error = "pause"\ncolumns', 1))
    admin.execute("INSERT INTO shop.orders (id) VALUES (1)")
    admin.execute(PRIVILEGE.encode())
    admin.execute("INSERT INTO shop.orders (id) VALUES (2)")
    admin.execute(PRIVILEGE.replace("REVOKE", "GRANT").replace("FROM refold_c", "TO refold_c").encode())
    # It pauses until it is resumed, and every statement is recorded.
    admin.execute("INSERT INTO shop.orders (id) SELECT generate_series(3, 40)")
    admin.execute("UPDATE shop.orders SET status = 'x' WHERE id = 3")
    assert captured.inserts() == [1]
    gaps = store.gaps(admin)[captured.capture().capture_id]
    assert (gaps.paused, gaps.statements) == (True, 3)
    assert "permission denied" in (gaps.error or "")
    assert store.resume(admin, captured.capture())
    admin.execute("INSERT INTO shop.orders (id) VALUES (41)")
    captured.backfill()
    assert captured.inserts() == list(range(1, 42))
    assert store.gaps(admin) == {}


@pytest.mark.parametrize("rows", [1, 30])
@pytest.mark.parametrize("on_error", ["fail", "pause"])
def test_a_lock_on_the_log_is_not_to_be_had(
    captured: Captured, admin: Connection, connect: Callable[..., Connection], on_error: str, rows: int
) -> None:
    captured.deploy(orders=ORDERS.replace("columns", f'on_error = "{on_error}"\ncolumns', 1))
    holder, writer = connect(), connect(autocommit=True)
    holder.execute("LOCK TABLE refold.events")
    insert = "INSERT INTO shop.orders (id) SELECT generate_series(%s::integer, %s)"
    # Neither is a time-out of the statement, which ends it in any case.
    writer.execute("SET statement_timeout = '100ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        writer.execute(insert, (1, rows))
    writer.execute("SET statement_timeout = 0; SET lock_timeout = '100ms'")
    if on_error == "fail":
        with pytest.raises(psycopg.errors.LockNotAvailable) as refused:
            writer.execute(insert, (1, rows))
        assert "refold_captures.orders_insert" in (refused.value.diag.context or "")
        assert store.gaps(admin) == {}
        holder.rollback()
        writer.execute(insert, (1, rows))
    else:
        writer.execute(insert, (1, rows))
        # It pauses, so that the next statement does not wait.
        writer.execute("SET lock_timeout = '10min'")
        writer.execute(insert, (rows + 1, rows + 1))
        gaps = store.gaps(admin)[captured.capture().capture_id]
        assert (gaps.paused, gaps.statements, gaps.failed) == (True, 2, True)
        assert "lock timeout" in (gaps.error or "")
        holder.rollback()
        assert captured.inserts() == []
        store.resume(admin, captured.capture())
        captured.backfill()
    there = [key for (key,) in admin.execute("SELECT id FROM shop.orders ORDER BY id").fetchall()]
    assert captured.inserts() == there != []
    assert captured.rejected() == []


def test_a_full_log_gets_room(captured: Captured, admin: Connection) -> None:
    """Without a worker nobody else makes segments."""
    captured.deploy(orders=ORDERS)
    admin.execute("UPDATE refold.settings SET segment_size = 100")
    admin.execute("INSERT INTO shop.orders (id) VALUES (1)")
    admin.execute("SELECT setval('refold.events_position', refold.log_end() - 12)")
    for number in range(2, 40):
        admin.execute("INSERT INTO shop.orders (id) VALUES (%s)", (number,))
    admin.execute("INSERT INTO shop.orders (id) SELECT generate_series(40, 1500)")
    assert captured.inserts() == list(range(1, 1501))


def test_writers_do_not_wait_for_each_other(
    captured: Captured, admin: Connection, connect: Callable[..., Connection]
) -> None:
    captured.deploy(orders=ORDERS)
    one, two = connect(), connect()
    one.execute("INSERT INTO shop.orders (id) VALUES (1)")
    two.execute("SET lock_timeout = '2s'")
    two.execute("INSERT INTO shop.orders (id) VALUES (2)")
    two.commit()
    one.commit()
    assert captured.inserts() == [1, 2]


def test_rows_that_break_a_contract_are_set_aside(captured: Captured, admin: Connection) -> None:
    """An enforced contract refuses the event, and never the application's write."""
    captured.deploy(orders=ORDERS)
    small = {"type": "object", "properties": {"share": {"type": "number", "exclusiveMaximum": 100}}}
    contracts.register(admin, small, action="order new")
    for rows in (1, 3, 30):
        admin.execute("DELETE FROM shop.orders")
        admin.execute(
            "INSERT INTO shop.orders (id, amount) SELECT n, 10 - 9 * (n %% 2) FROM generate_series(1, %s) AS n", (rows,)
        )
        assert admin.execute("SELECT count(*) FROM shop.orders").fetchone() == (rows,)
    assert captured.inserts() == sorted([2, *range(2, 31, 2)])
    reasons = {reason for _, reason in captured.rejected()}
    assert reasons == {"share: must be a number below 100, not 100.0000000000000000 (contract order new v1)"}
