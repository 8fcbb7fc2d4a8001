"""What is asked again and again reads a few pages: however long the log is, however far a metric is behind, and
whatever the planner believes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold.engine.apply.step import StepRunner
from refold.exporter.readings import read as scrape
from refold.inspect.doctor import metrics, room, transactions
from refold.inspect.report import report
from refold.inspect.status import read
from refold.postgres.connect import connect
from refold.postgres.session import PAGES
from refold.service.duties import (
    blocking_transactions,
    capture_gaps,
    lag_and_stall,
    missed_notifications,
    pressure,
    prune_statistics,
    stale_incidents,
    totals,
)
from refold.service.worker.loop import Worker
from refold.service.worker.missed_notifications import first_missed
from refold.service.worker.pending import builds_with_work
from refold.store.builds.build import kept
from refold.store.builds.compiled import Compiler
from refold.store.log.seal import note, seal
from refold.store.schema.cluster import inspect_cluster
from tests.conftest import ServerUnderTest
from tests.support.explained import explained
from tests.support.law import database

Connection = psycopg.Connection[Any]

MOST = 200
"""Pages of a statement."""
SEGMENT = 100_000
LENGTH, BACKLOG = 400_000, 150_000

PROJECT = {
    "daily": "SELECT (ts AT TIME ZONE 'UTC')::date AS day, count(*) AS n FROM events GROUP BY day",
    "views": "SELECT event_id, user_id, ts FROM events WHERE action = 'view'",
    "by_user": "SELECT user_id, count(*) AS n FROM views GROUP BY user_id",
}
# As many builds as the starters have.
BUILDS = PROJECT | {f"n{by}": f"SELECT action, count(*) * {by} AS n FROM events GROUP BY action" for by in range(2, 7)}

FILL = """
INSERT INTO refold.events (event_id, user_id, action, ts, metadata)
SELECT 'e' || n, 'u' || mod(n, 5000), CASE mod(n, 10) WHEN 0 THEN 'view' ELSE 'scroll' END,
       '2026-03-02 00:00:00+00'::timestamptz + n * interval '1 s',
       jsonb_build_object('n', n, 'page', '/' || mod(n, 300))
FROM generate_series(%s::bigint, %s::bigint) AS n
"""
NO_STATISTICS = """
UPDATE pg_class SET reltuples = -1, relpages = 0, relallvisible = 0
WHERE relnamespace IN ('refold'::regnamespace, 'refold_builds'::regnamespace) AND relkind IN ('r', 'i', 'p', 'I');
DELETE FROM pg_statistic AS s USING pg_class AS c
WHERE c.oid = s.starelid AND c.relnamespace IN ('refold'::regnamespace, 'refold_builds'::regnamespace)
"""
# As after an ANALYZE of tables that had a page.
WRONG_STATISTICS = (
    NO_STATISTICS
    + """;
UPDATE pg_class SET reltuples = 3, relpages = 1
WHERE relnamespace IN ('refold'::regnamespace, 'refold_builds'::regnamespace) AND relkind IN ('r', 'i')
"""
)
STATISTICS = {"fresh": "ANALYZE", "none": NO_STATISTICS, "wrong": WRONG_STATISTICS}


def fill(admin: Connection, first: int, last: int) -> None:
    """Appends events in statements of 50,000."""
    for start in range(first, last + 1, 50_000):
        admin.execute(FILL, (start, min(start + 49_999, last)))
        admin.execute("SELECT refold.ensure_segments(50000)")


@pytest.fixture(scope="module")
def long_log(server: ServerUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A log of 400,000 events, sealed, with metrics on it that are up to date; gives its URL."""
    folder = tmp_path_factory.mktemp("project")
    for name, query in PROJECT.items():
        (folder / f"{name}.sql").write_text(query)
    with database(server, segment_size=SEGMENT, segments=2, folder=folder) as url:
        with psycopg.connect(url, autocommit=True) as admin:
            fill(admin, 1, LENGTH)
            with connect(url, "refold_worker", autocommit=True) as conn:
                seal(conn)
                seal(conn)
            Worker(url, None).run(drain=True)
        yield url


def newest(conn: Connection) -> int:
    row = conn.execute("SELECT refold.last_txid()::text::bigint").fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture
def many_segments(server: ServerUnderTest, tmp_path: Path) -> Iterator[str]:
    """Metrics that are up to date, and then as many segments of unread events as hundreds of millions have."""
    for name, query in BUILDS.items():
        (tmp_path / f"{name}.sql").write_text(query)
    with database(server, segment_size=5_000, segments=2, folder=tmp_path) as url:
        with psycopg.connect(url, autocommit=True) as admin:
            fill(admin, 1, 10_000)
            Worker(url, None).run(drain=True)
            for first in range(10_001, 410_000, 4_000):
                admin.execute(FILL, (first, first + 3_999))
                admin.execute("SELECT refold.ensure_segments(4000)")
        yield url


Act = Callable[[Connection], object]

AS_WORKER: dict[str, Act] = {
    "look": builds_with_work,
    "cluster": inspect_cluster,
    "marks": note,
    "segments": lambda conn: conn.execute("SELECT refold.ensure_segments()"),
    "promote": lambda conn: StepRunner(conn, Compiler(None)).promote_ready(),
    "silent": lambda conn: first_missed(conn, newest(conn) - 1),
    "kept": kept,
    "status": read,
    "report": lambda conn: report(conn, timedelta(days=7)),
    "lag and stall": lambda conn: lag_and_stall.run(conn, Compiler(None)),
    "pressure": lambda conn: pressure.run(conn, Compiler(None)),
    "blocking transactions": lambda conn: blocking_transactions.run(conn, Compiler(None)),
    "capture gaps": lambda conn: capture_gaps.run(conn, Compiler(None)),
    "stale incidents": lambda conn: stale_incidents.run(conn, Compiler(None)),
    "missed notifications": lambda conn: missed_notifications.run(conn, Compiler(None)),
    "totals": lambda conn: totals.run(conn, Compiler(None)),
    "scrape": scrape,
    "prune statistics": lambda conn: prune_statistics.run(conn, Compiler(None)),
    "sealing": seal,
    "freshness": lambda conn: conn.execute("SELECT * FROM metrics.freshness").fetchall(),
    "doctor: segments": room.segments,
    "doctor: failing": metrics.failing,
    "doctor: lag": metrics.lag,
    "doctor: workers": metrics.workers,
    "doctor: writers": transactions.writers,
    "doctor: oldest": transactions.oldest,
}


def costly(url: str, settings: dict[str, str]) -> dict[str, list[tuple[int, str]]]:
    """The statements that read more than they may, by who runs them."""
    found = {}
    with connect(url, "refold_worker", autocommit=True, settings=settings) as conn:
        for name, act in AS_WORKER.items():
            act(conn)
            with explained(conn) as plans:
                act(conn)
            assert plans, name
            over = [(plan.buffers, plan.query[:100]) for plan in plans if plan.buffers > MOST]
            if over:
                found[name] = over
    return found


@pytest.mark.slow
@pytest.mark.parametrize("statistics", STATISTICS)
def test_a_long_log_with_nothing_unread(long_log: str, statistics: str) -> None:
    with psycopg.connect(long_log, autocommit=True) as admin:
        admin.execute(STATISTICS[statistics].encode())
    for settings in ({}, PAGES):
        assert costly(long_log, dict(settings)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("statistics", STATISTICS)
def test_a_long_backlog(long_log: str, statistics: str) -> None:
    with psycopg.connect(long_log, autocommit=True) as admin:
        if not admin.execute("SELECT FROM refold.event_ids WHERE event_id = %s", (f"e{LENGTH + 1}",)).rowcount:
            fill(admin, LENGTH + 1, LENGTH + BACKLOG)
        admin.execute(STATISTICS[statistics].encode())
        rows = admin.execute("SELECT lag_events, lag_exact FROM metrics.freshness").fetchall()
    assert len(rows) == len(PROJECT)
    for lag, exact in rows:
        assert lag == pytest.approx(BACKLOG, rel=0.1) and not exact
    for settings in ({}, PAGES):
        assert costly(long_log, dict(settings)) == {}


@pytest.mark.slow
def test_freshness_of_many_builds_far_behind(many_segments: str) -> None:
    with connect(many_segments, "refold_worker", autocommit=True) as conn:
        segments = conn.execute("SELECT count(*) FROM refold.segments").fetchone()
        assert segments is not None and segments[0] > 50
        AS_WORKER["freshness"](conn)
        for name in ("freshness", "doctor: lag"):
            with explained(conn) as plans:
                AS_WORKER[name](conn)
            assert max(plan.buffers for plan in plans) <= MOST, name
        rows = conn.execute("SELECT lag_events FROM metrics.freshness").fetchall()
    assert len(rows) == len(BUILDS)
    for (lag,) in rows:
        assert lag == pytest.approx(400_000, rel=0.05)
