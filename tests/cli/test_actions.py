"""Commands that act are recorded, with what came of them; dry runs and looking are not."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from refold.postgres.connect import connect
from refold.store.incidents import detect
from tests.cli.conftest import Refold

Connection = psycopg.Connection[Any]


def actions(conn: Connection) -> list[tuple[Any, ...]]:
    return conn.execute("SELECT command, arguments, outcome FROM refold.actions ORDER BY action_id").fetchall()


@pytest.mark.live("shop")
def test_what_acts_is_recorded(refold: Refold, admin: Connection) -> None:
    refold("status", "--json")
    refold("drop", "daily", "--dry-run")
    assert actions(admin) == []
    assert refold("reconcile", "daily", "--depth", "slice", "--json").status == 0
    assert refold("deadletters", "drop", "daily", "--reason", "none there").status == 0
    assert refold("rollback", "daily").status != 0
    assert actions(admin) == [
        ("reconcile", {"names": ["daily"], "depth": "slice"}, "done"),
        ("deadletters drop", {"which": ["daily"], "reason": "none there"}, "done"),
        ("rollback", {"name": "daily"}, "failed: BuildError"),
    ]


def test_tokens_are_not_recorded(refold: Refold, admin: Connection) -> None:
    token = refold("tokens", "create", "shop", "--json").json["token"]
    (row,) = actions(admin)
    assert row[0] == "tokens create" and row[1]["name"] == "shop" and token not in str(row)


def test_an_incident_is_taken_on(refold: Refold, admin: Connection, database_url: str) -> None:
    with connect(database_url, "refold_worker", autocommit=True) as conn:
        number = detect(conn, "lag", "daily", by="lag and stall", evidence={})
    done = refold("incidents", "ack", str(number), "--note", "more workers")
    assert done.status == 0 and "taken on by" in done.out
    assert "taken on by" in refold("incidents").out
    assert refold("incidents", "ack", str(number)).status == 0
    assert refold("incidents", "ack", "999999").status == 2
    rows = admin.execute("SELECT arguments, outcome, incident_id FROM refold.actions ORDER BY action_id").fetchall()
    assert rows == [
        ({"number": number, "note": "more workers"}, "done", number),
        ({"number": number}, "done", number),
        ({"number": 999999}, "failed: InputError", 999999),
    ]
