"""A thousand metrics: what the pages read, and how long they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from refold.dashboard.ask import Ask
from refold.dashboard.database import Database, Shared
from refold.dashboard.pages import (
    dead_letters,
    incidents,
    latency,
    lineage,
    metric,
    overview,
    pressure,
    rejected,
    sinks,
    toil,
)
from refold.postgres.connect import Role, connect
from tests.support.dashboard import Running
from tests.support.explained import explained

pytestmark = pytest.mark.slow

Connection = psycopg.Connection[Any]

METRICS = 1_000
MOST = 200
"""Pages of a statement, for each build."""

# Builds at the end of the log, an hour of latencies, two days of proofs by the hour, and half an hour of single ones.
FILL = """
INSERT INTO refold.deployments (kind) VALUES ('deploy');
INSERT INTO refold.builds
    (projection, fingerprint, number, state, table_name, language, definition, upkeep, loaded, deployment, promoted_at)
SELECT 'metric_' || lpad(n::text, 4, '0'), md5(n::text), 1, 'live', 'metric_' || n || '__1', 'sql', 'SELECT 1', 'merge',
       true, (SELECT max(deployment) FROM refold.deployments), now()
FROM generate_series(1, {metrics}) AS n;
INSERT INTO refold.cursors (build_id, number, done, applied_at)
SELECT build_id, 1, pg_current_snapshot(), now() FROM refold.builds;
INSERT INTO refold.latencies (minute, build_id, stage, bucket, events)
SELECT date_trunc('minute', now()) - m * interval '1 minute', build_id, stage, -100 + b, 10 * b
FROM refold.builds, generate_series(0, 59) AS m, unnest('{{waiting,applying,fresh}}'::text[]) AS stage,
     generate_series(1, 3) AS b;
INSERT INTO refold.proof_hours (build_id, depth, hour, proofs, differed)
SELECT build_id, 'quick', date_trunc('hour', now()) - h * interval '1 hour', 60, h % 7
FROM refold.builds, generate_series(1, 48) AS h;
INSERT INTO refold.proofs (build_id, depth, began_at, ended_at, rows, slices, differed)
SELECT build_id, 'quick', now() - m * interval '1 minute', now() - m * interval '1 minute', 100, 10, 0
FROM refold.builds, generate_series(0, 30) AS m;
"""


def fill(url: str, metrics: int) -> None:
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("SET session_replication_role = replica")
        admin.execute(FILL.format(metrics=metrics).encode())
        admin.execute("ANALYZE")


@pytest.fixture
def many(database_url: str) -> Iterator[Running]:
    fill(database_url, METRICS)
    with Running(database_url) as running:
        yield running


def test_the_overview_of_a_thousand_metrics(many: Running) -> None:
    page = many.get("/")
    assert page.status == 200 and "All 1,000 metrics equal the log." in page.text
    assert len(page.content) < 200_000


def test_the_lineage_of_a_thousand_metrics_is_that_of_neighbours(many: Running) -> None:
    page = many.get("/lineage")
    assert page.status == 200 and "901 more are left out" in page.text and 'id="graph"' not in page.text
    assert len(page.content) < 200_000
    assert 'id="graph"' in many.get("/lineage?around=metric_0007&depth=1").text
    nodes = many.get("/lineage.json?around=metric_0007&depth=1").body["nodes"]
    assert [one["id"] for one in nodes] == ["events", "metric_0007"]


READS: dict[str, Callable[[Ask], object]] = {
    "overview": overview.read,
    "metric": metric.read,
    "incidents": incidents.read,
    "dead letters": dead_letters.read,
    "rejected": rejected.read,
    "sinks": sinks.read,
    "latency": latency.read,
    "pressure": pressure.read,
    "lineage": lineage.read,
    "toil": toil.read,
}


class Explaining(Database):
    """Tells what each statement has read."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.read: list[tuple[int, str]] = []
        self._superuser = url

    def ask(self, role: Role, question: Callable[[Connection], Any]) -> Any:
        with connect(self._superuser, role, autocommit=True) as conn:
            question(conn)
        with connect(self._superuser, "refold_worker", autocommit=True) as conn:
            with explained(conn) as plans:
                answer = question(conn)
            self.read += [(plan.buffers, plan.query[:80]) for plan in plans]
        return answer


@pytest.mark.parametrize("builds", [20, 200])
def test_every_statement_reads_a_few_pages_for_each_build(database_url: str, builds: int) -> None:
    fill(database_url, builds)
    for name, read in READS.items():
        database = Explaining(database_url)
        ask = Ask(database, Shared(), "nobody", {"name": "metric_0007"}, {})
        read(ask)
        assert database.read, name
        worst = max(database.read)
        assert worst[0] <= MOST * builds, (name, worst)
