"""Fault 27: time zones and daylight saving. The same events are on the same days, whatever anybody's clock says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from refold import append
from refold.engine.deployment.deploy import rebuild
from refold.engine.reconcile.reconcile import reconcile
from refold.postgres.connect import connect as connect_as
from tests.support.live import SHOP, drain, make_live, wrong

Connection = psycopg.Connection[Any]

ZONES = ["UTC", "America/New_York", "Asia/Kathmandu", "Pacific/Kiritimati", "Etc/GMT+12", "Europe/Berlin"]
EDGES = [
    datetime(2026, 3, 8, 7, tzinfo=UTC),  # New York's clocks go forward
    datetime(2026, 3, 29, 1, tzinfo=UTC),  # Berlin's
    datetime(2026, 10, 25, 1, tzinfo=UTC),  # and back
    datetime(2026, 11, 1, 6, tzinfo=UTC),
    datetime(2026, 1, 1, tzinfo=UTC),  # midnight, the end of a year
    datetime(2024, 2, 29, tzinfo=UTC),
]
INSTANTS = sorted(edge + timedelta(minutes=minutes) for edge in EDGES for minutes in (-721, -61, -1, 0, 1, 61, 721))
DAYS = sorted({ts.date().isoformat() for ts in INSTANTS})


def offered(prefix: str) -> list[dict[str, Any]]:
    return [
        {"id": f"{prefix}{number}", "user_id": f"u{number % 4}", "action": "purchase", "ts": ts.isoformat()}
        for number, ts in enumerate(INSTANTS)
    ]


def ingest(url: str, file: Path, zone: str) -> None:
    """A file whose times do not say where they were written; the machine is somewhere else again."""
    environment = {**os.environ, "REFOLD_DATABASE_URL": url, "TZ": zone, "PGTZ": zone, "PGDATESTYLE": "SQL, DMY"}
    done = subprocess.run(
        [sys.executable, "-m", "refold", "ingest", str(file), "--timezone", "America/New_York", "--json"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["stored"] == 4


@pytest.mark.slow
def test_the_same_days_everywhere(
    database_url: str, conn: Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    conn.autocommit = True
    make_live(database_url)
    for number, zone in enumerate(ZONES):
        client = ZONES[number - 1]
        conn.execute(f"ALTER DATABASE \"{conn.info.dbname}\" SET timezone = '{zone}'".encode())
        conn.execute(f"ALTER DATABASE \"{conn.info.dbname}\" SET datestyle = 'SQL, DMY'".encode())
        monkeypatch.setenv("PGTZ", client)
        with psycopg.connect(database_url) as producer:
            assert producer.info.parameter_status("TimeZone") == client
            append(producer, offered(f"python-{number}-"))
            producer.execute("SELECT refold.append(%s)", (Jsonb(offered(f"sql-{number}-")),))
            # timestamptz literals without offset are the caller's own; with one they are not.
            producer.execute(
                "INSERT INTO refold.events (event_id, user_id, action, ts)"
                " SELECT 'plain-' || (e->>'id'), e->>'user_id', e->>'action', (e->>'ts')::timestamptz"
                " FROM jsonb_array_elements(%s) AS e",
                (Jsonb(offered(f"{number}-")),),
            )
        drain(database_url)
        assert wrong(database_url) == {}
        with psycopg.connect(database_url) as analyst:
            analyst.execute("SET datestyle = 'ISO'")
            rows = analyst.execute("SELECT day::text, events FROM metrics.daily ORDER BY day").fetchall()
            assert [day for day, _ in rows] == DAYS
            assert sum(events for _, events in rows) == (number + 1) * 3 * len(INSTANTS)
    with connect_as(database_url, "refold_worker", autocommit=True) as worker:
        assert reconcile(worker, SHOP).drift == 0
        assert reconcile(worker, SHOP, since=EDGES[1]).drift == 0
        rebuild(worker, SHOP, ["daily", "paths"], lambda progress: None)
    assert wrong(database_url) == {}


ZONED = """
SELECT
    event_id,
    to_jsonb(ts)                                AS as_json,
    concat(ts)                                  AS as_text,
    ts + interval '1 day'                       AS a_day_later,
    ts - interval '1 month'                     AS a_month_before,
    ts > '2026-03-08 02:30'                     AS after,
    (metadata->>'local')::timestamptz           AS local
FROM events
"""


def test_what_the_session_decides_is_decided_in_utc(database_url: str, conn: Connection, tmp_path: Path) -> None:
    """These are fine in SQL, and mean something else in every zone; so refold's own sessions have one."""
    conn.autocommit = True
    conn.execute(f"ALTER DATABASE \"{conn.info.dbname}\" SET timezone = 'America/New_York'".encode())
    conn.execute(f"ALTER DATABASE \"{conn.info.dbname}\" SET datestyle = 'SQL, DMY'".encode())
    (tmp_path / "zoned.sql").write_text(ZONED)
    local = {"metadata": {"local": "2026-03-08 02:30:00"}}
    with psycopg.connect(database_url) as producer:
        append(producer, [event | local for event in offered("loaded")])
    make_live(database_url, tmp_path)
    with psycopg.connect(database_url) as producer:
        append(producer, [event | local for event in offered("paged")])
    drain(database_url, tmp_path)
    assert wrong(database_url, tmp_path) == {}
    with connect_as(database_url, "refold_worker", autocommit=True) as worker:
        assert reconcile(worker, tmp_path).drift == 0
        worker.execute("DELETE FROM metrics.zoned")
        assert reconcile(worker, tmp_path).drift == 2 * len(INSTANTS)
    assert wrong(database_url, tmp_path) == {}


def test_times_of_a_file_are_where_it_says_they_were_written(
    database_url: str, conn: Connection, tmp_path: Path
) -> None:
    file = tmp_path / "v.csv"
    times = ["2026-03-08 01:59:59", "2026-03-08 03:00:00", "2026-11-01 01:30:00", "2026-12-31 19:00:00"]
    file.write_text("id,action,ts\n" + "".join(f"{n},view,{text}\n" for n, text in enumerate(times)))
    ingest(database_url, file, "Asia/Kathmandu")
    rows = conn.execute("SELECT DISTINCT ts FROM refold.events ORDER BY 1").fetchall()
    assert [ts for (ts,) in rows] == [
        datetime(2026, 3, 8, 6, 59, 59, tzinfo=UTC),
        datetime(2026, 3, 8, 7, tzinfo=UTC),
        datetime(2026, 11, 1, 5, 30, tzinfo=UTC),
        datetime(2027, 1, 1, tzinfo=UTC),
    ]
