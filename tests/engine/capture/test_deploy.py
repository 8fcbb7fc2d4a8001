"""Deploys of captures: what Postgres says of a file, what changes, what stands in the database, and who may."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
import pytest

from refold.engine.capture import deploy as engine
from refold.engine.capture.deploy import CaptureChange, plan
from refold.engine.capture.probe import checked
from refold.errors import BuildError, DatabaseError, RefoldError, each
from refold.inspect.doctor.captures import captures as doctor
from refold.model.capture.capture_file import load_captures
from refold.postgres.connect import connect as connect_as
from tests.conftest import ServerUnderTest
from tests.support.capturing import ORDERS, Captured, Connection
from tests.support.logins import login


def planned(captured: Captured) -> CaptureChange:
    loaded = load_captures(captured.folder, [])
    (one,) = plan(captured.admin, checked(captured.admin, loaded, []), {"orders"})
    return one


WRONG = [
    ("table", '"shop.order"', "there is no table shop.order. Did you mean shop.orders?", "Create it first"),
    ("table", '"refold.events"', "tables in the schema refold cannot be captured", None),
    ("table", '"shop.seen"', "shop.seen is a view", "Capture the table"),
    ("user", '"row.customr"', "column row.customr does not exist. Did you mean customer?", "orders has id"),
    ("user", '"customer"', "column reference", "Write new.COLUMN"),
    ("user", '"new.customer"', "(in delete)", "add [delete] with an expression of its own"),
    ("user", '"count(*)::text"', "aggregate functions are not allowed", None),
    ("user", '"row.customer) AS a, (row.id"', "syntax error", None),
    ("user", '"row.customer); DROP TABLE shop.orders; SELECT (1"', "", None),
    ("user", '"shop_of(row.id)"', "function shop_of(bigint) does not exist", "with its schema"),
    ("time", '"row.created_at::timestamp"', "must be of the type timestamp with time zone", "AT TIME ZONE 'UTC'"),
    ("time", '"row.status"', "must be of the type timestamp with time zone, not text", None),
    ("metadata", '"row.note"', "must be of the type jsonb, not json", "::jsonb"),
    ("columns", '["statu"]', "orders has no column statu. Did you mean status?", None),
    ("id", '["customer"]', "no unique index of orders has exactly these columns", "CREATE UNIQUE INDEX"),
]


@pytest.mark.parametrize(("key", "value", "message", "remedy"), WRONG)
def test_postgres_checks_every_key(
    captured: Captured, admin: Connection, key: str, value: str, message: str, remedy: str | None
) -> None:
    admin.execute("CREATE VIEW shop.seen AS SELECT * FROM shop.orders")
    head, *tables = ORDERS.partition("[update]")
    lines = [line for line in head.splitlines() if not line.startswith(f"{key} =")]
    text = "\n".join([*lines, f"{key} = {value}", *(["[update]" + tables[1]] if tables else [])])
    with pytest.raises(RefoldError) as refused:
        captured.deploy(orders=text)
    told = str(refused.value)
    assert f"orders.toml:{len(lines) + 1}: {key}: " in told
    assert message in told
    assert remedy is None or remedy in str(each([refused.value])[0].remedy)
    assert admin.execute("SELECT FROM refold.captures").rowcount == 0
    assert admin.execute("SELECT FROM shop.orders").rowcount == 0


def test_mistakes_in_several_files_at_once(captured: Captured) -> None:
    with pytest.raises(RefoldError) as refused:
        captured.deploy(
            orders=ORDERS.replace("row.customer", "row.custmer"), other=ORDERS.replace("old.status", "old.x")
        )
    assert "orders.toml:4: user" in str(refused.value)
    assert "other.toml:10: update.metadata" in str(refused.value)


def test_a_plan_and_its_deploy(captured: Captured, admin: Connection) -> None:
    (captured.folder / "orders.toml").write_text(ORDERS)
    assert planned(captured).action == "new"
    captured.deploy()
    assert planned(captured).action == "unchanged"
    before = captured.capture()
    captured.deploy(orders=ORDERS.replace("'order deleted'", "'gone'"))
    assert captured.capture().capture_id == before.capture_id
    admin.execute("INSERT INTO shop.orders (id) VALUES (1)")
    admin.execute("DELETE FROM shop.orders")
    assert captured.events()[-1] == ("1", "delete", "gone")
    # Fewer operations, fewer triggers and functions.
    captured.deploy(orders=ORDERS.replace('"update", "delete"', '"update"').partition("[delete]")[0])
    assert sorted(captured.capture().functions) == ["orders_backfill", "orders_insert", "orders_update"]
    assert admin.execute(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 'shop.orders'::regclass AND NOT tgisinternal ORDER BY 1"
    ).fetchall() == [("refold_orders_insert",), ("refold_orders_update",)]
    # A comment changes nothing that is generated.
    captured.deploy(orders=captured.capture().definition + "# why\n")
    assert planned(captured).action == "unchanged"


def test_another_table(captured: Captured, admin: Connection) -> None:
    captured.deploy(orders=ORDERS)
    admin.execute("CREATE TABLE shop.others (LIKE shop.orders INCLUDING ALL)")
    captured.deploy(orders=ORDERS.replace("shop.orders", "shop.others"))
    admin.execute("INSERT INTO shop.orders (id) VALUES (1); INSERT INTO shop.others (id) VALUES (2)")
    assert captured.inserts() == [2]


DAMAGE = [
    ("ALTER TABLE shop.orders DISABLE TRIGGER refold_orders_insert", "is disabled, or does not fire always"),
    ("ALTER TABLE shop.orders ENABLE TRIGGER refold_orders_insert", "is disabled, or does not fire always"),
    ("DROP TRIGGER refold_orders_update ON shop.orders", "the trigger refold_orders_update is gone"),
    ("DROP FUNCTION refold_captures.orders_backfill", "the function refold_captures.orders_backfill is gone"),
    (
        "CREATE OR REPLACE FUNCTION refold_captures.orders_insert() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RETURN NULL; END'",
        "the function refold_captures.orders_insert was replaced",
    ),
    ("ALTER FUNCTION refold_captures.orders_insert() OWNER TO postgres", "its functions belong to postgres"),
    ("ALTER FUNCTION refold_captures.orders_insert() RESET search_path", "was replaced"),
    ("ALTER TABLE shop.orders ADD COLUMN extra text", "columns of shop.orders have changed since the deploy: extra"),
]


@pytest.mark.parametrize(("change", "finding"), DAMAGE)
def test_the_doctor_sees_damage_and_a_deploy_mends_it(
    captured: Captured, admin: Connection, change: str, finding: str
) -> None:
    captured.deploy(orders=ORDERS)
    projections = captured.folder.parent / "projections"
    (ok,) = doctor(projections, admin)
    assert (ok.verdict, ok.found) == ("ok", "orders: as deployed")
    admin.execute(change.encode())
    found = doctor(projections, admin)
    assert finding in "\n".join(one.found for one in found)
    assert all("refold deploy" in one.remedy for one in found)
    assert planned(captured).action == "repaired"
    if "OWNER" in change:
        admin.execute("ALTER FUNCTION refold_captures.orders_insert() OWNER TO refold_capture")
    captured.deploy()
    assert [one.verdict for one in doctor(projections, admin)] == ["ok"]
    admin.execute("INSERT INTO shop.orders (id) VALUES (1)")
    assert captured.inserts() == [1]


def test_the_doctor_compares_files_and_sees_gaps(captured: Captured, admin: Connection) -> None:
    captured.deploy(orders=ORDERS)
    folder = captured.folder
    (folder / "orders.toml").write_text(ORDERS + "# more\n")
    (folder / "wrong.toml").write_text("x = 1")
    found = [one.found for one in doctor(folder.parent / "projections", admin)]
    assert found[-1] == "not deployed as their files are: orders"
    assert any("wrong.toml: table: is missing" in one for one in found)
    admin.execute("INSERT INTO refold.capture_gaps (capture_id, operation) SELECT capture_id, 'insert'"
                  " FROM refold.captures")  # fmt: skip
    (gap,) = doctor(None, admin)
    assert (gap.verdict, gap.found) == ("warn", "orders: 1 statements have made no events")
    admin.execute("UPDATE refold.capture_gaps SET pauses = true")
    (paused,) = doctor(None, admin)
    assert paused.found.startswith("orders has been paused since ")


def test_a_dropped_or_renamed_table(captured: Captured, admin: Connection) -> None:
    captured.deploy(orders=ORDERS)
    admin.execute("ALTER TABLE shop.orders RENAME TO purchases")
    admin.execute("INSERT INTO shop.purchases (id) VALUES (1)")
    assert captured.inserts() == [1]
    (found,) = doctor(None, admin)
    assert found.found == "orders: its table shop.orders is gone, or has another name"
    captured.deploy(orders=ORDERS.replace("shop.orders", "shop.purchases"))
    assert [one.verdict for one in doctor(None, admin)] == ["ok"]
    admin.execute("DROP TABLE shop.purchases")
    assert [one.verdict for one in doctor(None, admin)] == ["fail"]
    with connect_as(captured.url, "refold_capture", autocommit=True) as conn:
        engine.drop(conn, captured.capture())
    assert doctor(None, admin) == []
    assert admin.execute("SELECT FROM pg_proc WHERE pronamespace = 'refold_captures'::regnamespace").rowcount == 0


def test_a_drop_leaves_nothing_but_the_events(captured: Captured, admin: Connection) -> None:
    captured.deploy(orders=ORDERS)
    admin.execute("INSERT INTO shop.orders (id) VALUES (1)")
    with connect_as(captured.url, "refold_capture", autocommit=True) as conn:
        engine.drop(conn, captured.capture())
    admin.execute("INSERT INTO shop.orders (id) VALUES (2)")
    admin.execute("TRUNCATE shop.orders")
    assert captured.inserts() == [1]
    # Deployed again, it goes on where the ledger is.
    captured.deploy()
    admin.execute("INSERT INTO shop.orders (id) VALUES (1), (3)")
    captured.backfill()
    assert captured.inserts() == [1, 1, 3]


def test_who_may_capture(captured: Captured, server: ServerUnderTest, admin: Connection) -> None:
    with login(server, admin, "refold_analyst", "refold_worker") as url:
        with pytest.raises(DatabaseError, match="may not act as refold_capture"):
            captured.deploy(url, orders=ORDERS)
        with psycopg.connect(url, autocommit=True) as conn:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute("CREATE FUNCTION refold_captures.mine() RETURNS integer LANGUAGE sql RETURN 1")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute("INSERT INTO refold.captures DEFAULT VALUES")
    with login(server, admin, "refold_capture") as url:
        with pytest.raises(DatabaseError, match=r"does not own shop\.orders, and only its owner may capture it"):
            captured.deploy(url, orders=ORDERS)
        with psycopg.connect(url) as conn:
            name = psycopg.sql.Identifier(conn.info.user)
        admin.execute(psycopg.sql.SQL("ALTER SCHEMA shop OWNER TO {}").format(name))
        admin.execute(psycopg.sql.SQL("ALTER TABLE shop.orders OWNER TO {}").format(name))
        captured.deploy(url)
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("INSERT INTO shop.orders (id) VALUES (1)")
            assert captured.inserts() == [1]
            # Its functions cannot be put on tables of somebody's own.
            conn.execute("CREATE TEMPORARY TABLE mine (LIKE shop.orders)")
        admin.execute(psycopg.sql.SQL("ALTER SCHEMA shop OWNER TO postgres"))
        admin.execute(psycopg.sql.SQL("ALTER TABLE shop.orders OWNER TO postgres"))
    assert admin.execute(
        "SELECT count(*) FROM pg_proc WHERE pronamespace = 'refold_captures'::regnamespace"
        " AND (has_function_privilege('public', oid, 'EXECUTE') OR NOT prosecdef"
        " OR proowner <> 'refold_capture'::regrole"
        " OR NOT 'search_path=pg_catalog, pg_temp' = ANY (proconfig))"
    ).fetchone() == (0,)


@pytest.mark.slow
def test_a_deploy_does_not_block_writers_behind_a_long_one(
    captured: Captured, connect: Callable[..., Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "LOCK_WAIT_S", 2.0)
    captured.admin.execute("INSERT INTO shop.orders (id) VALUES (10)")
    long = connect()
    long.execute("INSERT INTO shop.orders (id) VALUES (1)")
    over = threading.Event()
    failed: list[psycopg.Error] = []

    def write() -> None:
        with psycopg.connect(captured.url, autocommit=True) as conn:
            while not over.is_set():
                try:
                    conn.execute("SET lock_timeout = '1500ms'")
                    conn.execute("INSERT INTO shop.orders (id) SELECT max(id) + 1 FROM (TABLE shop.orders) AS o"
                                 " HAVING max(id) > 0")  # fmt: skip
                except psycopg.Error as error:
                    failed.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    with pytest.raises(BuildError, match="held the table of the capture orders"):
        captured.deploy(orders=ORDERS)
    long.commit()
    captured.deploy()
    over.set()
    writer.join()
    assert failed == []
    captured.backfill(step=1000)
    there = captured.admin.execute("SELECT id FROM shop.orders ORDER BY id").fetchall()
    assert captured.inserts() == [key for (key,) in there]
