"""Cursors in the database: rows that are added, of which the newest counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from alembic import command
from psycopg import sql
from psycopg.errors import ObjectNotInPrerequisiteState

from refold import append
from refold.engine.deployment.create import make_builds, new_deployment
from refold.model.projection.definition import from_source
from refold.model.projection.plan import LOG, LOG_COLUMNS
from refold.store.builds.build import find
from refold.store.schema.migrate import alembic_config, migrate
from tests.conftest import ServerUnderTest
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


BEFORE = """
CREATE TRIGGER guard_cursor BEFORE UPDATE OF done ON refold.builds
FOR EACH ROW WHEN (OLD.done::text <> NEW.done::text) EXECUTE FUNCTION suppress_redundant_updates_trigger();
CREATE TRIGGER refuse_foreign_cluster BEFORE UPDATE OF done, target ON refold.builds
FOR EACH ROW WHEN (NEW.target IS NOT NULL) EXECUTE FUNCTION suppress_redundant_updates_trigger();
CREATE VIEW metrics.freshness AS
SELECT b.projection AS metric, now() AS as_of, 0::bigint AS lag_events, 0::numeric(12, 3) AS lag_seconds,
       b.applied_at AS last_applied_at, 0::bigint AS dead_letters
FROM refold.builds AS b WHERE b.done IS NOT NULL;
CREATE VIEW metrics.watched AS SELECT metric, lag_seconds FROM metrics.freshness;
INSERT INTO refold.deployments (kind) VALUES ('deploy');
INSERT INTO refold.builds (projection, fingerprint, number, state, table_name, language, definition, upkeep, deployment,
    done, target, progress_txid, progress_position, progress_ordinal, events_applied, pages_applied, apply_ms, moved_at)
VALUES ('run', 'f', 1, 'live', 'run', 'sql', '', 'merge', 1, '5:9:5,7', '9:12:10', '11', 41, 3, 77, 8, 1.5, 'epoch'),
       ('old', 'f', 1, 'dropped', 'old', 'sql', '', 'facts', 1, '3:3:', NULL, NULL, NULL, NULL, 9, 1, 0, NULL);
"""
"""What the version before had: cursors in `builds`, and what stood on its columns."""

HAVING = """
INSERT INTO refold.deployments (kind) VALUES ('deploy');
INSERT INTO refold.builds (projection, fingerprint, number, state, table_name, language, definition, upkeep, deployment)
VALUES ('many', 'f', 1, 'live', 'many', 'sql', '', 'merge', 1);
CREATE VIEW metrics.many AS SELECT number FROM generate_series(1, 9) AS number WHERE number > 5;
ALTER VIEW metrics.many OWNER TO refold_worker;
"""
"""A live metric that leaves rows out, in the version before that."""


@pytest.fixture
def older(server: ServerUnderTest) -> Iterator[str]:
    """A database as the version before left it."""
    name = "refold_older"
    url = server.url_of(name)
    with psycopg.connect(server.url_of(server.maintenance_dbname), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        try:
            with psycopg.connect(url, autocommit=True) as conn:
                for schema in ("refold", "metrics"):
                    conn.execute(f"CREATE SCHEMA {schema} AUTHORIZATION refold_owner".encode())
                command.upgrade(alembic_config(url), "0010")
                conn.execute("SET ROLE refold_owner")
                conn.execute(BEFORE)
            yield url
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_cursors_come_along_from_the_version_before(older: str) -> None:
    with psycopg.connect(older, autocommit=True) as conn:
        moved = (
            "SELECT projection, done::text, target::text, progress_txid::text, progress_position, progress_ordinal,"
            " events_applied, pages_applied, apply_ms, applied_at, moved_at FROM refold.{} ORDER BY projection"
        )
        before = conn.execute(moved.format("builds").encode()).fetchall()
        assert [row[1] for row in before] == ["3:3:", "5:9:5,7"]
        migrate(older)
        assert conn.execute(moved.format("builds_now").encode()).fetchall() == before
        assert conn.execute("SELECT metric FROM metrics.watched").fetchall() == [("run",)]
        command.check(alembic_config(older))


def test_a_metric_of_having_comes_along_with_a_barrier(server: ServerUnderTest) -> None:
    """Its view belongs to the worker, whom the migration is not."""
    name = "refold_older_having"
    url = server.url_of(name)
    with psycopg.connect(server.url_of(server.maintenance_dbname), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        try:
            with psycopg.connect(url, autocommit=True) as conn:
                for schema in ("refold", "metrics"):
                    conn.execute(f"CREATE SCHEMA {schema} AUTHORIZATION refold_owner".encode())
                conn.execute("GRANT USAGE, CREATE ON SCHEMA metrics TO refold_worker")
                command.upgrade(alembic_config(url), "0009")
                conn.execute(HAVING)
                command.upgrade(alembic_config(url), "0010")
                found = conn.execute("SELECT reloptions FROM pg_class WHERE oid = 'metrics.many'::regclass").fetchone()
                assert found == (["security_barrier"],) or found == (["security_barrier=true"],)
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
