"""Columns whose names need quotes, in every kind of upkeep: found and healed like any other."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from refold import Log
from refold.engine.reconcile.reconcile import reconcile
from tests.support.law import random_events, worker_connection
from tests.support.live import drain, make_live, wrong

NAMES = 'action AS "it\'s", version AS "a""b", user_id AS "order"'
QUERIES = {
    "plain": f"SELECT event_id, {NAMES} FROM events",
    "counted": f'SELECT {NAMES}, count(*) AS "n\'s" FROM events GROUP BY action, version, user_id',
    "different": f'SELECT {NAMES}, count(DISTINCT ts) AS "t\'s" FROM events GROUP BY action, version, user_id',
    "again": f'SELECT {NAMES}, array_agg(ts ORDER BY ts, event_id) AS "t\'s" FROM events'
    " GROUP BY action, version, user_id",
}


@pytest.mark.parametrize("kind", QUERIES)
def test_names_that_need_quotes(database_url: str, tmp_path: Path, kind: str) -> None:
    (tmp_path / f"{kind}.sql").write_text(QUERIES[kind])
    with Log(database_url) as log:
        log.append(random_events(30))
        table = make_live(database_url, tmp_path)[kind]
        log.append(random_events(30, prefix="later"))
    drain(database_url, tmp_path)
    with worker_connection(database_url) as conn:
        assert conn.execute(f"""DELETE FROM {table} WHERE "it's" = 'view'""".encode()).rowcount > 0
        report = reconcile(conn, tmp_path)
    assert report.counts[kind, table.split(".")[1], "missing"] > 0
    assert all("it's" in finding.key or "event_id" in finding.key for finding in report.findings)
    with psycopg.connect(database_url) as conn:
        assert conn.execute(f"SELECT FROM metrics.{kind} WHERE \"it's\" = 'view'".encode()).rowcount > 0
    assert wrong(database_url, tmp_path, {}) == {}
