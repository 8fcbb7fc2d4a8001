"""The indexes that recompute needs on the log, made while producers write."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import Log, append
from refold.engine.deployment.deploy import rebuild
from refold.model.projection.definition import load_directory
from refold.service.worker.loop import Worker
from tests.support.law import PROJECT, deploy_project, random_events, worker_connection, wrong_metrics
from tests.support.waiting import wait_until

Connect = Callable[..., psycopg.Connection[Any]]

ON_THE_LOG_BY_KEY = ("days.sql", "sessions.sql")
"""The projections for which the log itself gets an index."""


def silent(progress: object) -> None:
    """Nobody needs to be told."""


@pytest.fixture
def url(database_url: str) -> str:
    """A database with some events and the law's project live over them."""
    with Log(database_url) as log:
        log.append(random_events(150))
    deploy_project(database_url)
    return database_url


def check(url: str, folder: Path = PROJECT) -> None:
    """Everything is applied, and every metric is right."""
    Worker(url, folder).run(drain=True)
    assert wrong_metrics(url, load_directory(folder)) == {}


def test_an_index_on_the_log_waits_for_a_writer_and_nobody_waits_for_it(
    database_url: str, tmp_path: Path, connect: Connect
) -> None:
    """A lock that waits in the queue would stop every producer behind it."""
    for name in ON_THE_LOG_BY_KEY:
        shutil.copy(PROJECT / name, tmp_path)
    paused, other = connect(), connect()
    append(paused, random_events(5, prefix="paused-"))
    other.execute("SET lock_timeout = '1s'")
    other.commit()
    deploying = threading.Thread(target=deploy_project, args=(database_url, tmp_path), daemon=True)
    deploying.start()
    waits = """
        SELECT FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND query LIKE 'CREATE INDEX%' AND datname = current_database()
    """
    with connect(autocommit=True) as watch:
        wait_until(lambda: watch.execute(waits).rowcount > 0)
        for number in range(30):
            append(other, random_events(1, prefix=f"{number}-"))
            other.commit()
        assert deploying.is_alive()
        paused.commit()
        deploying.join(30)
    assert not deploying.is_alive()
    check(database_url, tmp_path)


def test_an_index_on_the_log_that_was_interrupted_is_completed(url: str, connect: Connect) -> None:
    with connect(autocommit=True) as admin:
        invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
        [(name, parent)] = admin.execute(
            """
            SELECT c.relname, pg_get_indexdef(c.oid)
            FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
            WHERE i.indrelid = 'refold.events'::regclass AND c.relname LIKE 'key%'
              AND pg_get_indexdef(c.oid) LIKE '%user_id%'
            """
        ).fetchall()
        admin.execute(f"DROP INDEX refold.{name}".encode())
        # pg_get_indexdef says ON ONLY: no segment has one.
        admin.execute(parent.encode())
        assert admin.execute(invalid).fetchone() == (1,)
        with worker_connection(url) as conn:
            rebuild(conn, PROJECT, ["sessions"], silent)
        assert admin.execute(invalid).fetchone() == (0,)
