"""A standby: what works there, what is refused and with which remedy, and what it counts as late."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold.store.schema.migrate import migrate
from tests.support.clusters import cluster, make_database, standby
from tests.support.live import SHOP, drain, make_live
from tests.support.restored import append
from tests.support.waiting import wait_until

from .conftest import Outcome, Refold

READING = [
    ["status"],
    ["incidents", "--open"],
    ["report"],
    ["doctor"],
    ["query", "SELECT sum(events) FROM daily"],
    ["query", "TABLE freshness"],
    ["rejected"],
    ["deadletters", "list"],
    ["explain", "daily", "--deployed"],
    ["url", "--role", "analyst"],
]
WRITING = [
    ["migrate"],
    ["deploy"],
    ["deploy", "--dry-run"],
    ["rebuild", "daily"],
    ["promote", "daily"],
    ["rollback", "daily"],
    ["ingest", "events.jsonl"],
    ["worker"],
    ["worker", "--drain"],
    ["reconcile"],
    ["reconcile", "--dry-run"],
    ["scrub"],
    ["deadletters", "retry", "daily"],
    ["recover", "--yes"],
]


def figure(conn: psycopg.Connection[Any], query: str) -> Any:
    row = conn.execute(query.encode()).fetchone()
    return None if row is None else row[0]


@pytest.mark.slow
def test_a_standby(bare: Refold) -> None:
    Path("events.jsonl").write_text('{"id": "new", "action": "view", "ts": "2026-03-01T10:00:00Z"}\n')
    with cluster() as primary:
        url = make_database(primary, "shop")
        migrate(url)
        make_live(url)
        append(url, 30)
        drain(url)
        with standby(primary) as copy, psycopg.connect(copy.url_of("shop"), autocommit=True) as there:
            at = copy.url_of("shop")

            def refold(*arguments: str) -> Outcome:
                reads = arguments[0] in ("deploy", "worker", "recover", "explain")
                return bare(*arguments, *(["--projections", str(SHOP)] if reads else []), REFOLD_DATABASE_URL=at)

            append(url, 35)
            drain(url)
            wait_until(lambda: figure(there, "SELECT sum(events)::integer FROM metrics.daily") == 35, deadline_s=30)
            for command in READING:
                done = refold(*command)
                assert done.status in (0, 1), (command, done.err)
                assert "standby" not in done.err
            for command in WRITING:
                done = refold(*command)
                assert done.status == 2, command
                assert "this server is a standby" in done.err, command
                assert "target_session_attrs=read-write" in done.err
            # Advice to write names the server that takes it.
            Path("empty").mkdir()
            advised = " ".join(refold("doctor", "--projections", "empty").out.split())
            assert "projections: On the primary: `refold deploy --dry-run` shows the plan." in advised
            assert "has replayed all it received" in refold("status").out
            assert figure(there, "SELECT max(lag_seconds) FROM metrics.freshness") == 0

            # What the primary applies from now on is missing here, and no event is seen to wait.
            there.execute("SELECT pg_wal_replay_pause()")
            append(url, 40)
            drain(url)
            wait_until(lambda: figure(there, "SELECT refold.replayed_at() < clock_timestamp()"))
            assert figure(there, "SELECT max(lag_events) FROM metrics.freshness") == 0
            assert figure(there, "SELECT min(lag_seconds) > 0 AND max(as_of) < now() FROM metrics.freshness")
            seen = refold("status", "--json").json
            assert seen["standby"]["connected"] is True and seen["standby"]["seconds"] > 0
            assert all(build["lag_seconds"] > 0 for build in seen["builds"])
            assert " behind its primary" in refold("status").out
            there.execute("SELECT pg_wal_replay_resume()")
            wait_until(lambda: figure(there, "SELECT sum(events)::integer FROM metrics.daily") == 40, deadline_s=30)

            primary.stop(immediate=True)
            wait_until(lambda: not figure(there, "SELECT count(*) FROM pg_stat_wal_receiver"), deadline_s=30)
            assert "not connected to it" in refold("status").out
            assert "not connected to it" in refold("doctor").out
