"""Cursors in the database: rows that are added, of which the newest counts."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.errors import ObjectNotInPrerequisiteState

from refold import append
from refold.engine.deployment.create import make_builds, new_deployment
from refold.model.projection.definition import from_source
from refold.model.projection.plan import LOG, LOG_COLUMNS
from refold.store.builds.build import find
from tests.support.live import drain, make_live, wrong
from tests.support.making import events

pytestmark = pytest.mark.live("shop")

Connection = psycopg.Connection[Any]


@pytest.fixture
def build_id(database_url: str, conn: Connection) -> int:
    """A build whose cursor has moved a few times."""
    conn.autocommit = True
    make_live(database_url)
    for number in range(3):
        append(conn, events(2, f"more{number}-"))
        drain(database_url)
    (build,) = find(conn, "b.projection = 'daily' AND b.state = 'live'")
    return build.build_id


def numbers(conn: Connection, build_id: int) -> list[int]:
    rows = conn.execute("SELECT number FROM refold.cursors WHERE build_id = %s ORDER BY 1", (build_id,)).fetchall()
    return [number for (number,) in rows]


def test_a_page_adds_a_row_and_changes_none(conn: Connection, build_id: int, database_url: str) -> None:
    before = conn.execute(
        "SELECT c::text FROM refold.cursors AS c WHERE build_id = %s ORDER BY 1", (build_id,)
    ).fetchall()
    versions = "SELECT xmin::text FROM refold.builds WHERE build_id = %s"
    version = conn.execute(versions, (build_id,)).fetchone()
    append(conn, events(2, "again"))
    drain(database_url)
    after = conn.execute(
        "SELECT c::text FROM refold.cursors AS c WHERE build_id = %s ORDER BY 1", (build_id,)
    ).fetchall()
    assert len(after) > len(before)
    assert after[: len(before)] == before
    assert conn.execute(versions, (build_id,)).fetchone() == version
    assert wrong(database_url) == {}


@pytest.mark.parametrize(
    ("number", "done"),
    [
        ("number + 1", "'1:1:'"),
        ("number - 1", "done"),
        ("number + 1", "concat('1:', pg_snapshot_xmax(done), ':1')"),
    ],
)
def test_a_cursor_never_moves_backwards(conn: Connection, build_id: int, number: str, done: str) -> None:
    before = numbers(conn, build_id)
    with pytest.raises(ObjectNotInPrerequisiteState, match="would move backwards"):
        conn.execute(
            f"INSERT INTO refold.cursors (build_id, number, done) SELECT build_id, {number}, ({done})::pg_snapshot"
            " FROM refold.cursors WHERE build_id = %s ORDER BY number DESC LIMIT 1".encode(),
            (build_id,),
        )
    assert numbers(conn, build_id) == before


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM refold.cursors WHERE build_id = %(build)s",
        "DELETE FROM refold.cursors AS c USING refold.builds AS b WHERE b.build_id = %(build)s AND c.number ="
        " (SELECT max(number) FROM refold.cursors WHERE build_id = %(build)s) AND c.build_id = b.build_id",
        "UPDATE refold.cursors SET done = '1:1:' WHERE build_id = %(build)s",
        "UPDATE refold.cursors SET number = number + 1000 WHERE build_id = %(build)s AND number = 0",
    ],
)
def test_the_newest_row_stays(conn: Connection, build_id: int, change: str) -> None:
    """Also for the owner and a superuser: what it would bring back has been applied since."""
    before = numbers(conn, build_id)
    with pytest.raises(ObjectNotInPrerequisiteState, match="refused"):
        conn.execute(change.encode(), {"build": build_id})
    assert numbers(conn, build_id) == before
    conn.execute("DELETE FROM refold.cursors WHERE build_id = %s AND number < %s", (build_id, before[-1]))
    assert numbers(conn, build_id) == before[-1:]


def test_a_build_takes_its_cursors_with_it(conn: Connection) -> None:
    conn.execute("SET ROLE refold_worker")
    deployment = new_deployment(conn, "deploy", promote=False)
    definition = from_source("one", "SELECT action, count(*) AS n FROM events GROUP BY action", {LOG: LOG_COLUMNS}, {})
    (build,) = make_builds(conn, [definition], deployment, resumed={})
    assert numbers(conn, build.build_id) == [0]
    conn.execute("RESET ROLE")
    conn.execute("DELETE FROM refold.builds WHERE build_id = %s", (build.build_id,))
    assert numbers(conn, build.build_id) == []
