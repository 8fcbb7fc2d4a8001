"""Back-pressure: a duty measures, levels have hysteresis, and who brings events in waits or is refused."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import Log, Overloaded, append, pressure
from refold.model.pressure import Level
from refold.postgres.connect import connection
from refold.service.duties import pressure as duty
from refold.store.builds.compiled import Compiler
from refold.store.schema.migrate import migrate
from tests.support.clusters import cluster, make_database
from tests.support.live import SHOP, make_live
from tests.support.making import events, stored

Connection = psycopg.Connection[Any]
pytestmark = pytest.mark.live("shop")


def measured(url: str) -> dict[str, int]:
    """Lets the duty measure once, and gives the levels."""
    with connection(url, "refold_worker", autocommit=True) as conn:
        duty.run(conn, Compiler(SHOP))
        return {one.signal: one.level for one in pressure(conn).signals}


def set_level(conn: Connection, level: int, *, signal: str = "lag", seconds_ago: int = 0) -> None:
    conn.execute(
        "INSERT INTO refold.pressure_signals (signal, level, value, slow_at, stop_at, seen_at)"
        " VALUES (%s, %s, 70, 60, 120, clock_timestamp() - make_interval(secs => %s))"
        " ON CONFLICT (signal) DO UPDATE SET level = excluded.level, seen_at = excluded.seen_at",
        (signal, level, seconds_ago),
    )


def test_a_quiet_database_is_fine_once_it_is_measured(database_url: str, admin: Connection) -> None:
    assert not pressure(admin).known, "unknown is never fine"
    assert measured(database_url) == {"connections": 0, "lag": 0}
    assert pressure(admin).known
    assert pressure(admin).level is Level.fine


def test_lag_slows_stops_and_is_over(database_url: str, admin: Connection) -> None:
    append(admin, events(3))
    admin.execute("UPDATE refold.settings SET lag_limit = 0")
    assert measured(database_url)["lag"] == 1
    admin.execute("UPDATE refold.settings SET lag_limit = 1, lag_stop = 2")
    time.sleep(2.1)
    assert measured(database_url)["lag"] == 2
    assert "behind" in pressure(admin).because
    admin.execute("UPDATE refold.settings SET lag_stop = NULL, lag_limit = 600")
    assert measured(database_url)["lag"] == 0
    with pytest.raises(psycopg.errors.CheckViolation):
        admin.execute("UPDATE refold.settings SET lag_limit = 60, lag_stop = 60")


def test_the_disk_counts_once_it_has_a_limit(database_url: str, admin: Connection) -> None:
    row = admin.execute("SELECT pg_database_size(current_database())").fetchone()
    assert row is not None
    admin.execute("UPDATE refold.settings SET disk_limit = %s", (row[0] // 2,))
    assert measured(database_url)["disk"] == 2
    admin.execute("UPDATE refold.settings SET disk_limit = %s", (row[0] * 1000,))
    assert measured(database_url)["disk"] == 0
    admin.execute("UPDATE refold.settings SET disk_limit = NULL")
    assert "disk" not in measured(database_url)


def test_a_disk_that_is_nearly_full_costs_the_tables_that_only_a_rollback_needs(
    database_url: str, admin: Connection, tmp_path: Path
) -> None:
    """They can be built again; the log and what was rejected stay."""
    folder = tmp_path / "projections"
    shutil.copytree(SHOP, folder)
    (folder / "daily.sql").write_text("SELECT action, count(*) AS n FROM events GROUP BY action")
    make_live(database_url, folder)
    append(admin, [*events(3), {"id": "bad"}])
    retired = "SELECT count(*) FROM refold.builds WHERE state = 'retired'"
    assert one(admin, retired) == 1
    size = one(admin, "SELECT pg_database_size(current_database())")
    admin.execute("UPDATE refold.settings SET disk_limit = %s", (size * 10,))
    measured(database_url)
    assert (one(admin, retired), open_pressure(admin)) == (1, [])
    admin.execute("UPDATE refold.settings SET disk_limit = %s", (int(size / 0.9),))
    assert measured(database_url)["disk"] == 1
    assert one(admin, retired) == 0
    assert one(admin, "SELECT count(*) FROM refold.events") == 3
    assert one(admin, "SELECT count(*) FROM refold.rejected") == 1
    [(subject, evidence)] = open_pressure(admin)
    assert (subject, len(evidence["dropped"])) == ("disk", 1)
    admin.execute("UPDATE refold.settings SET disk_limit = %s", (size * 10,))
    measured(database_url)
    assert open_pressure(admin) == []


@pytest.mark.slow
def test_wal_that_a_slot_keeps_slows_bulk_and_refuses_nobody() -> None:
    """Once Postgres has a limit for it: beyond that it drops the slot, and a standby is lost."""
    with cluster({"wal_level": "replica", "max_replication_slots": "2", "max_slot_wal_keep_size": "1MB"}) as server:
        url = make_database(server, "slots")
        migrate(url)
        with psycopg.connect(url, autocommit=True) as conn:
            assert measured(url)["replication"] == 0
            conn.execute("SELECT pg_create_physical_replication_slot('standby', true)")
            conn.execute("SELECT pg_logical_emit_message(false, 'x', repeat('x', 3000000))")
            assert measured(url)["replication"] == 1
            assert pressure(conn).because.startswith("replication: ")
            assert [subject for subject, _ in open_pressure(conn)] == ["replication"]
            conn.execute("SELECT pg_drop_replication_slot('standby')")
            assert measured(url)["replication"] == 0


def open_pressure(conn: Connection) -> list[tuple[str, Any]]:
    return conn.execute(
        "SELECT subject, evidence FROM refold.incidents WHERE kind = 'pressure' AND resolved_at IS NULL"
    ).fetchall()


def one(conn: Connection, query: str) -> Any:
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def test_a_level_that_nobody_measures_stays_and_is_unknown(admin: Connection) -> None:
    set_level(admin, 1, seconds_ago=120)
    found = pressure(admin)
    assert (found.level, found.known) == (Level.slow, False)
    # A clock that was ahead does not vouch for it either.
    set_level(admin, 1, seconds_ago=-3600)
    assert not pressure(admin).known


def test_a_log_waits_until_all_is_fine(database_url: str, admin: Connection) -> None:
    set_level(admin, 1)
    told: list[str] = []
    with Log(database_url, pressure="wait", on_wait=lambda found: told.append(found.because)) as log:
        thread = threading.Thread(target=log.append, args=(events(1),))
        thread.start()
        time.sleep(1.5)
        assert stored(admin) == []
        set_level(admin, 0)
        thread.join(10)
    assert len(stored(admin)) == 1
    assert told[0] == "metrics are 70 s behind"


def test_a_log_does_not_wait_for_what_nobody_measures(database_url: str, admin: Connection) -> None:
    """Else a nightly load, after which workers are started, would never end."""
    set_level(admin, 2, seconds_ago=120)
    with Log(database_url, pressure="wait") as log:
        log.append(events(1))
    assert len(stored(admin)) == 1


def test_a_log_raises_once_producers_are_refused(database_url: str, admin: Connection) -> None:
    with Log(database_url, pressure="raise") as log:
        set_level(admin, 1)
        log.append(events(1))
        set_level(admin, 2)
        time.sleep(2.1)
        with pytest.raises(Overloaded) as refused:
            log.append(events(1, prefix="b"))
        assert refused.value.retry_after > 0
    assert len(stored(admin)) == 1


def test_in_the_callers_transaction_nothing_is_refused(producer: Connection, admin: Connection) -> None:
    set_level(admin, 2)
    append(producer, events(1))
    producer.commit()
    assert len(stored(admin)) == 1


@pytest.mark.parametrize(
    "role", ["refold_producer", "refold_door", "refold_observer", "refold_inspector", "refold_analyst"]
)
def test_all_may_read_it_and_only_workers_write(database_url: str, role: Any) -> None:
    with connection(database_url, role, autocommit=True) as conn:
        pressure(conn)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("DELETE FROM refold.pressure_signals")
