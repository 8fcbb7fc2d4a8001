"""Fault 30: somebody captures changes. CREATE PUBLICATION … FOR ALL TABLES asks an identity of every table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import Log, append
from refold.engine.deployment.deploy import rebuild
from refold.engine.deployment.rollback import rollback
from refold.engine.reconcile.reconcile import reconcile
from refold.postgres.connect import connect as connect_as
from refold.postgres.replica_identity import lacking
from refold.service.duties import prune_statistics
from refold.service.duties.registry import DUTIES
from refold.service.duties.schedule import Schedule
from refold.store.builds.compiled import Compiler
from refold.store.schema.migrate import migrate
from tests.conftest import ServerUnderTest
from tests.support.live import PROJECTS, SHOP, drain, make_live, wrong
from tests.support.making import events

Connection = psycopg.Connection[Any]

LAW = PROJECTS / "law"
"""Every kind of upkeep, funnels that are kept in their rows among them."""

FACELESS = """
SELECT c.oid::regclass::text FROM pg_class AS c
WHERE c.relnamespace IN ('refold'::regnamespace, 'refold_builds'::regnamespace) AND c.relkind IN ('r', 'p')
  AND c.relreplident <> 'f'
  AND NOT (c.relreplident = 'd'
           AND EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid))
ORDER BY 1
"""


def everything(url: str) -> None:
    """All that writes into refold's tables: producers, pages, audits, healing, duties, a rebuild, a rollback."""
    with Log(url) as log:
        log.append(events(60))
        log.append(events(60))
        log.append([*events(1), {"id": "e1", "action": "other", "ts": 0}, {"id": "bad"}, {"id": "bad"}])
    drain(url)
    with psycopg.connect(url, autocommit=True) as admin:
        tables = [
            name
            for (name,) in admin.execute(
                "SELECT table_name FROM refold.builds WHERE state = 'live' AND projection IN ('daily', 'paths')"
            ).fetchall()
        ]
        for table in tables:
            admin.execute(f"DELETE FROM refold_builds.{table}".encode())
    with connect_as(url, "refold_worker", autocommit=True) as conn:
        reconcile(conn, SHOP, depth="slice")
        assert reconcile(conn, SHOP).drift == 0
        schedule = Schedule(DUTIES)
        for _ in DUTIES:
            schedule.turn(conn, Compiler(SHOP))
        prune_statistics.run(conn, Compiler(None))
        assert conn.execute("SELECT name, error FROM refold.duties WHERE error IS NOT NULL").fetchall() == []
        rebuild(conn, SHOP, ["purchases", "daily"], lambda progress: None, cascade=True)
        rollback(conn, SHOP, "daily", lambda progress: None)
    with Log(url) as log:
        log.append(events(60, "late-"))
    drain(url)
    assert wrong(url) == {}


@pytest.mark.slow
def test_installed_and_deployed_beside_a_publication(server: ServerUnderTest, admin: Connection) -> None:
    name = f"{admin.info.dbname}_published"
    admin.execute(f"CREATE DATABASE {name}".encode())
    url = server.url_of(name)
    try:
        with psycopg.connect(url, autocommit=True) as other:
            other.execute("CREATE PUBLICATION everything FOR ALL TABLES")
        migrate(url)
        make_live(url)
        everything(url)
    finally:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.mark.slow
@pytest.mark.parametrize(
    "before",
    [True, pytest.param(False, marks=pytest.mark.exhaustive)],
    ids=["published before", "published after"],
)
def test_each_kind_of_upkeep(database_url: str, admin: Connection, before: bool) -> None:
    publish = b"CREATE PUBLICATION everything FOR ALL TABLES"
    if before:
        admin.execute(publish)
    make_live(database_url, LAW)
    if not before:
        admin.execute(publish)
    with Log(database_url) as log:
        for prefix in ("", "more-"):
            log.append(events(20, prefix))
            drain(database_url, LAW)
    assert admin.execute("SELECT count(DISTINCT upkeep) FROM refold.builds").fetchone() == (6,)
    with connect_as(database_url, "refold_worker", autocommit=True) as conn:
        for table in conn.execute("SELECT table_name FROM refold.builds WHERE upkeep <> 'transform'").fetchall():
            conn.execute(f"DELETE FROM refold_builds.{table[0]}".encode())
        assert reconcile(conn, LAW).drift > 0
        assert reconcile(conn, LAW).clean
        assert lacking(conn) == []


@pytest.mark.live("shop")
def test_published_when_builds_are_live(database_url: str, admin: Connection) -> None:
    make_live(database_url)
    admin.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    everything(database_url)
    assert admin.execute(FACELESS).fetchall() == []


def test_funnels_are_kept_beside_a_publication(database_url: str, admin: Connection, tmp_path: Path) -> None:
    """A publication of all tables leaves generated columns out, and what has one is not told by its whole row."""
    (tmp_path / "reached.sql").write_text(
        "SELECT user_id, window_funnel(NULL, ts, action = 'view', action = 'purchase') AS level,"
        " window_funnel_times(NULL, ts, action = 'view', action = 'purchase') AS times FROM events GROUP BY user_id"
    )
    make_live(database_url, tmp_path)
    assert admin.execute("SELECT upkeep FROM refold.builds WHERE state = 'live'").fetchall() == [("funnel",)]
    admin.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    for name in ("one-", "two-"):
        with psycopg.connect(database_url) as producer:
            append(producer, events(10, name))
        drain(database_url, tmp_path)
    assert wrong(database_url, tmp_path, {}) == {}
    assert admin.execute("SELECT error FROM refold.builds").fetchall() == [(None,)]
    assert (
        admin.execute(
            "SELECT attname FROM pg_attribute WHERE attgenerated <> '' AND attrelid::regclass::text LIKE 'refold%'"
        ).fetchall()
        == []
    )


@pytest.mark.slow
@pytest.mark.live("shop")
@pytest.mark.parametrize("publication", [False, True])
def test_builds_of_an_older_version_get_their_identity_by_migrate(
    database_url: str, admin: Connection, publication: bool
) -> None:
    make_live(database_url)
    tables = admin.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'refold_builds'").fetchall()
    for (table,) in tables:
        admin.execute(f"ALTER TABLE refold_builds.{table} REPLICA IDENTITY DEFAULT".encode())
    if publication:
        admin.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    with connect_as(database_url, "refold_worker", autocommit=True) as conn:
        assert [one.name for one in lacking(conn)] == sorted(f"refold_builds.{table}" for (table,) in tables)
    migrate(database_url)
    assert admin.execute(FACELESS).fetchall() == []
    with connect_as(database_url, "refold_worker", autocommit=True) as conn:
        assert lacking(conn) == []
    everything(database_url)


@pytest.mark.live("shop")
def test_no_table_is_without_an_identity(database_url: str, admin: Connection) -> None:
    """Segments and tables of builds among them, also those that come later."""
    make_live(database_url)
    with psycopg.connect(database_url) as producer:
        append(producer, events(10))
    with connect_as(database_url, "refold_worker", autocommit=True) as conn:
        rebuild(conn, SHOP, ["daily"], lambda progress: None, promote=False)
        assert lacking(conn) == []
    assert admin.execute(FACELESS).fetchall() == []
