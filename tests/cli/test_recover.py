"""`refold recover` as an operator sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.support.tampering import tamper
from tests.support.waiting import wait_until

from .conftest import Refold

Connection = psycopg.Connection[tuple[object, ...]]


@pytest.fixture
def foreign(
    refold: Refold, metric: Callable[[str, str], Path], record: Callable[..., None], conn: Connection
) -> Refold:
    """A database with a metric, whose cursors speak of another cluster."""
    metric("counts", "SELECT action, count(*) AS events FROM events GROUP BY action")
    record("view=a", "view=b", "buy=a")
    refold("deploy")
    record("buy=b")
    conn.execute("UPDATE refold.settings SET system_identifier = 7")
    conn.commit()
    return refold


@pytest.mark.parametrize("command", [("status",), ("worker", "--drain"), ("reconcile",), ("deploy",)])
def test_commands_refuse_and_say_what_to_do(foreign: Refold, command: tuple[str, ...]) -> None:
    done = foreign(*command)
    assert done.status == 2
    assert "restored from another cluster" in done.err
    assert "refold recover" in done.err


def test_a_dry_run_tells_and_changes_nothing(foreign: Refold, conn: Connection) -> None:
    conn.rollback()
    before = conn.execute("SELECT b::text FROM refold.builds_now AS b").fetchall()
    # While a transaction is open anywhere on the server, the answer is to wait for it.
    done = wait_until(lambda: (told := foreign("recover", "--dry-run", "--json")).json["strategy"] != "wait" and told)
    assert done and done.status == 0
    assert (done.json["strategy"], done.json["ledger"]["events"]) == ("adopt", 4)
    assert done.json["builds"] == [
        {"projection": "counts", "table": done.json["builds"][0]["table"], "outcome": "audited"}
    ]
    said = wait_until(lambda: "wait:" not in (told := foreign("recover", "--dry-run").out) and told)
    assert said and "adopt: every transaction below" in said
    assert "audited against the log" in said
    assert conn.execute("SELECT b::text FROM refold.builds_now AS b").fetchall() == before
    assert foreign("status").status == 2


def test_nobody_is_taken_by_surprise(foreign: Refold) -> None:
    done = foreign("recover")
    assert done.status == 2
    assert "refold recover --yes" in done.err
    assert foreign("status").status == 2


def test_it_is_recovered_and_goes_on(foreign: Refold, conn: Connection) -> None:
    conn.execute(f"DELETE FROM refold_builds.{_table(conn)}".encode())
    conn.commit()
    done = foreign("recover", "--yes")
    assert done.status == 0, done.err
    assert "log: 4 events" in done.out
    assert "audited: counts" in done.out
    assert "missing" in done.out
    assert foreign("worker", "--drain").status == 0
    assert "buy,2" in foreign("query", "SELECT * FROM counts", "--csv").out
    again = foreign("recover", "--yes", "--json")
    assert (again.status, again.json["strategy"], again.json["healed"]) == (0, "prove", [])
    # A backup of this cluster may be older than an erasure, too.
    assert "refold erase apply FILE" in " ".join(foreign("recover", "--yes").err.split())


def test_lost_events_are_named(foreign: Refold, conn: Connection) -> None:
    tamper(conn, "DELETE FROM refold.events WHERE event_id IN ('2', '4')")
    conn.commit()
    done = foreign("recover", "--yes")
    assert "lost: 2 events" in done.out
    assert "2, 4" in done.out


def _table(conn: Connection) -> str:
    row = conn.execute("SELECT table_name FROM refold.builds").fetchone()
    assert row is not None
    return str(row[0])
