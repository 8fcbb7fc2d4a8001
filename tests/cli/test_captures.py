"""`refold deploy` with captures, and `refold captures`."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.support.capturing import ORDERS, TABLE, Connection

from .conftest import Refold


@pytest.fixture
def shop(refold: Refold, admin: Connection) -> Refold:
    """A project with one capture, not deployed, of a table with three rows."""
    admin.execute(TABLE.encode())
    admin.execute("INSERT INTO shop.orders (id) SELECT generate_series(1, 3)")
    Path("projections").mkdir()
    Path("captures").mkdir()
    Path("captures/orders.toml").write_text(ORDERS)
    return refold


def test_from_a_file_to_events(shop: Refold, admin: Connection) -> None:
    planned = shop("deploy", "--dry-run")
    assert planned.status == 0, planned.err
    assert "orders   new     shop.orders  it makes events of insert, update, delete" in planned.out
    assert "CREATE OR REPLACE TRIGGER refold_orders_insert\n    AFTER INSERT ON shop.orders" in planned.out
    assert "GRANT SELECT ON shop.orders TO refold_capture;" in planned.out
    assert admin.execute("SELECT FROM pg_proc WHERE pronamespace = 'refold_captures'::regnamespace").rowcount == 0
    done = shop("deploy")
    assert done.status == 0, done.err
    assert "orders: captured" in done.out
    assert "refold captures backfill orders" in done.err
    admin.execute("INSERT INTO shop.orders (id) VALUES (4)")
    filled = shop("captures", "backfill", "orders")
    assert (filled.status, filled.out) == (0, "orders: 4 rows read, 3 had no event\n")
    again = shop("deploy", "--json").json["captures"]
    assert [(one["capture"], one["action"], one["statements"]) for one in again] == [("orders", "unchanged", [])]
    (listed,) = shop("captures", "list", "--json").json
    assert (listed["state"], listed["gaps"], listed["backfill"]["added"]) == ("live", 0, 3)
    assert "done: 4 rows, 3 added" in shop("captures", "list").out


def test_mistakes_come_with_those_of_projections(shop: Refold, admin: Connection) -> None:
    Path("projections/bad.sql").write_text("SELECT nothing FROM events")
    Path("captures/orders.toml").write_text(ORDERS.replace("row.customer", "row.custmer"))
    Path("captures/second.toml").write_text("tabel = 'x'")
    for dry_run in ([], ["--dry-run"]):
        done = shop("deploy", *dry_run)
        assert done.status == 2
        for part in (
            "captures/orders.toml:4: user: Postgres says: column row.custmer does not exist. Did you mean customer?",
            "captures/second.toml:1: tabel: is not known. Did you mean table?",
            "captures/second.toml: action: is missing",
            "projections/bad.sql",
        ):
            assert part in done.err
    assert admin.execute("SELECT FROM refold.captures").rowcount == 0


def test_pause_resume_and_backfill(shop: Refold, admin: Connection) -> None:
    assert shop("deploy").status == 0
    assert shop("captures", "pause", "orders").out == "orders: paused\n"
    assert shop("captures", "pause", "orders").out == "orders: nothing to do\n"
    admin.execute("INSERT INTO shop.orders (id) VALUES (4)")
    refused = shop("captures", "backfill", "orders")
    assert refused.status == 2
    assert "refold captures resume orders" in refused.err
    assert shop("captures", "list", "--json").json[0]["state"] == "paused"
    resumed = shop("captures", "resume", "orders")
    assert "1 statement made no events meanwhile" in resumed.err
    assert shop("captures", "list", "--json").json[0]["gaps"] == 1
    assert shop("captures", "backfill", "orders", "--json").json == {
        "capture": "orders", "rows": 4, "added": 4, "gaps": 0,
    }  # fmt: skip
    shop("captures", "pause", "orders")
    assert shop("captures", "resume", "orders", "--json").json == {
        "capture": "orders", "state": "resumed", "changed": True,
    }  # fmt: skip
    assert shop("captures", "list", "--json").json[0]["gaps"] == 0


def test_drop(shop: Refold, admin: Connection) -> None:
    assert shop("deploy").status == 0
    dry = shop("captures", "drop", "orders", "--dry-run")
    assert "would drop trigger refold_orders_insert on shop.orders" in dry.out
    assert shop("captures", "list", "--json").json != []
    assert "captures/orders.toml still defines it" in shop("captures", "drop", "orders").err
    assert shop("captures", "list", "--json").json == []
    assert "no capture: write captures/NAME.toml" in shop("captures", "list").err
    for command in ("drop", "pause", "resume", "backfill"):
        missing = shop("captures", command, "orders")
        assert (missing.status, "there is no capture 'orders'" in missing.err) == (2, True)


def test_a_name_that_is_nearly_right(shop: Refold) -> None:
    assert shop("deploy").status == 0
    assert "Did you mean orders?" in shop("captures", "pause", "order").err
    Path("captures/orders.toml").rename("captures/orders.toml.txt")
    done = shop("deploy")
    assert "captures/orders.toml.txt is ignored" in done.err
    assert "captures without a file here are left alone: orders" in done.err


def test_the_doctor_and_damage(shop: Refold, admin: Connection) -> None:
    assert shop("deploy").status == 0
    admin.execute("ALTER TABLE shop.orders DISABLE TRIGGER refold_orders_insert")
    (found,) = (one for one in shop("doctor", "--json").json if one["name"] == "captures")
    assert found["verdict"] == "fail"
    assert shop("captures", "list", "--json").json[0]["state"] == "damaged"
    assert shop("deploy").status == 0
    assert shop("captures", "list", "--json").json[0]["state"] == "live"


def test_an_observer_lists(shop: Refold, admin: Connection) -> None:
    assert shop("deploy").status == 0
    with psycopg.connect(admin.info.dsn, dbname=admin.info.dbname, autocommit=True) as conn:
        conn.execute("SET ROLE refold_observer")
        from refold.store import captures as store

        assert [one.name for one in store.every(conn)] == ["orders"]
        assert store.gaps(conn) == {}
        assert store.backfills(conn) == {}
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("SELECT error FROM refold.capture_gaps")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("SELECT last FROM refold.backfills")


def test_status_tells_of_a_pause_and_of_a_gap(shop: Refold, admin: Connection) -> None:
    assert shop("deploy").status == 0
    assert shop("status", "--json").json["gaps"] == {}
    assert shop("captures", "pause", "orders").status == 0
    admin.execute("INSERT INTO shop.orders (id) VALUES (4)")
    (line,) = (one for one in shop("status").out.splitlines() if "orders" in one)
    assert line.startswith("paused    the capture orders, since 20")
    assert line.endswith(
        "1 statement made no events (`refold captures resume orders`, then `refold captures backfill orders`)"
    )
    assert shop("captures", "resume", "orders").status == 0
    assert shop("status", "--json").json["gaps"]["orders"]["statements"] == 1
    assert "gap       the capture orders: 1 statement made no events" in shop("status").out
    assert shop("captures", "backfill", "orders").status == 0
    assert "orders" not in shop("status").out
