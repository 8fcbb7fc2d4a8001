"""The doctor: each condition injected, seen, ended; and what a login that may not see everything is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from refold import append
from refold.inspect.doctor.check import Check, addressed
from refold.inspect.doctor.doctor import doctor
from refold.store.incidents import detect
from tests.conftest import ServerUnderTest
from tests.support.live import SHOP, drain, make_live
from tests.support.making import events
from tests.support.tampering import tamper
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]
Examine = Callable[..., dict[str, Check]]


@pytest.fixture
def admin(conn: Connection) -> Connection:
    """A superuser's connection in autocommit mode."""
    conn.autocommit = True
    return conn


@pytest.fixture
def examine(database_url: str) -> Examine:
    """The doctor's checks by name: the worst of each."""

    def examine(url: str = database_url, folder: Path | None = None) -> dict[str, Check]:
        order = {"ok": 0, "unseen": 1, "warn": 2, "fail": 3}
        with psycopg.connect(url, autocommit=True) as conn:
            found = doctor(conn, url, folder)
        return {check.name: check for check in sorted(found, key=lambda check: order[check.verdict])}

    return examine


@contextmanager
def login(server: ServerUnderTest, admin: Connection, *roles: str) -> Iterator[str]:
    """The URL of a login role of its own, a member of some roles and no superuser."""
    name = sql.Identifier(f"refold_patient_{os.getpid()}")
    admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(name))
    try:
        for role in roles:
            admin.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), name))
        yield replace(server, user=f"refold_patient_{os.getpid()}", password="secret").url_of(admin.info.dbname)
    finally:
        admin.execute(sql.SQL("DROP ROLE {}").format(name))


@pytest.mark.live("shop")
def test_a_healthy_database(database_url: str, examine: Examine) -> None:
    make_live(database_url)
    found = examine(folder=SHOP)
    # The tests' servers run without fsync, and nobody works here.
    assert {name for name, check in found.items() if check.verdict not in ("ok", "unseen")} <= {
        "setting fsync", "workers", "disk", "connections",
    }  # fmt: skip
    assert found["projections"].verdict == found["notifications"].verdict == found["cluster"].verdict == "ok"
    assert found["schema"].found.startswith("migration 0")
    assert all(check.remedy for check in found.values() if check.verdict in ("warn", "fail"))
    assert len(found) >= 20


def test_before_migrate(server: ServerUnderTest, examine: Examine) -> None:
    found = examine(server.url_of(server.maintenance_dbname))
    assert (found["schema"].verdict, found["schema"].remedy) == ("fail", "Run `refold migrate`.")
    assert found["notifications"].verdict == "ok"
    assert "cluster" not in found and "segments" not in found


def test_an_older_schema(admin: Connection, examine: Examine) -> None:
    admin.execute("UPDATE refold.alembic_version SET version_num = '0000'")
    assert (examine()["schema"].verdict, examine()["schema"].remedy) == ("fail", "Run `refold migrate`.")


def test_a_database_from_elsewhere(admin: Connection, examine: Examine) -> None:
    admin.execute("UPDATE refold.settings SET system_identifier = 42")
    assert examine()["cluster"].verdict == "fail"
    assert "42" in examine()["cluster"].found
    assert "`refold recover --dry-run`" in examine()["cluster"].remedy


def test_a_log_that_is_younger_than_its_cursors(admin: Connection, examine: Examine) -> None:
    """After a partial restore the cluster is the same one, and workers refuse all the same."""
    tamper(
        admin,
        "INSERT INTO refold.events (event_id, action, ts, txid, position)"
        " VALUES ('later', 'view', now(), '1000000000', 1)",
    )
    assert examine()["cluster"].verdict == "fail"
    assert "has only reached" in examine()["cluster"].found


def test_damage_to_the_log_is_no_mere_warning(admin: Connection, examine: Examine) -> None:
    admin.execute(
        "INSERT INTO refold.incidents (kind, subject, started_at, detected_by) VALUES ('lag', 'a', now(), 'x')"
    )
    assert examine()["incidents"].verdict == "warn"
    admin.execute(
        "INSERT INTO refold.incidents (kind, subject, started_at, detected_by) VALUES ('log_damage', 'a', now(), 'x')"
    )
    assert examine()["incidents"].verdict == "fail"


@pytest.mark.live("shop")
def test_grants_that_are_gone(database_url: str, admin: Connection, examine: Examine) -> None:
    make_live(database_url)
    assert examine()["grants"].verdict == "ok"
    admin.execute(
        "REVOKE SELECT ON metrics.daily FROM refold_analyst; REVOKE UPDATE ON refold.builds FROM refold_worker"
    )
    found = examine()["grants"]
    assert found.verdict == "fail"
    assert "refold_analyst SELECT on metrics.daily" in found.found
    assert "refold_worker UPDATE on refold.builds" in found.found


def test_who_may_not_see_is_told_so(server: ServerUnderTest, admin: Connection, examine: Examine) -> None:
    with login(server, admin, "refold_worker") as url:
        found = examine(url)
        assert found["roles"].verdict == found["schema"].verdict == found["cluster"].verdict == "ok"
        assert found["oldest transaction"].verdict == "unseen"
        assert found["disk"].verdict == "unseen"
    with login(server, admin) as url:
        found = examine(url)
        assert found["roles"].verdict == "warn"
        assert {found[name].verdict for name in ("schema", "cluster", "segments", "metrics")} == {"unseen"}
        assert all("GRANT" in found[name].remedy for name in ("schema", "cluster", "segments", "metrics", "roles"))
        # The catalog is everybody's.
        assert found["grants"].verdict == found["notifications"].verdict == "ok"


def test_transactions_that_hold_events_back(
    admin: Connection, connect: Callable[..., Connection], examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refold.inspect.doctor.transactions.HELD", (0.0, 3600.0))
    assert examine()["open writers"].verdict == examine()["prepared transactions"].verdict == "ok"
    slow, caller = connect(application_name="slow"), connect()
    append(slow, events(1, "slow"))
    append(caller, events(1, "prepared"))
    caller.execute("PREPARE TRANSACTION 'orphan'")
    found = examine()
    assert found["open writers"].verdict == found["prepared transactions"].verdict == "warn"
    assert f"pid {slow.info.backend_pid} (slow)" in found["open writers"].found
    assert "gid orphan" in found["prepared transactions"].found
    slow.rollback()
    admin.execute("ROLLBACK PREPARED 'orphan'")
    assert examine()["open writers"].verdict == examine()["prepared transactions"].verdict == "ok"


def test_any_old_transaction(
    connect: Callable[..., Connection], examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refold.inspect.doctor.transactions.OPEN", (0.0, 1e9))
    reader = connect()
    reader.execute("SELECT 1")
    assert examine()["oldest transaction"].verdict == "warn"


def test_who_does_not_notify(admin: Connection, examine: Examine) -> None:
    assert "on for all" in examine()["notify"].found
    database = sql.Identifier(admin.info.dbname)
    admin.execute(sql.SQL("ALTER ROLE refold_producer IN DATABASE {} SET refold.notify = off").format(database))
    assert "off for refold_producer" in examine()["notify"].found


def test_room_in_the_log(admin: Connection, examine: Examine) -> None:
    assert examine()["segments"].verdict == "ok"
    for (segment,) in admin.execute("SELECT segment::text FROM refold.segments ORDER BY lower_position").fetchall():
        admin.execute(f"DROP TABLE {segment}".encode())
    assert examine()["segments"].verdict == "fail"
    admin.execute("SELECT refold.ensure_segments()")
    assert examine()["segments"].verdict == "ok"


@pytest.mark.live("shop")
def test_a_table_that_autovacuum_leaves_alone(database_url: str, admin: Connection, examine: Examine) -> None:
    table = make_live(database_url)["daily"]
    assert examine()["autovacuum"].verdict == "ok"
    admin.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)".encode())
    assert (examine()["autovacuum"].verdict, table in examine()["autovacuum"].found) == ("fail", True)


@pytest.mark.live("shop")
def test_files_and_builds(database_url: str, examine: Examine, tmp_path: Path) -> None:
    make_live(database_url)
    for path in SHOP.iterdir():
        if path.suffix in (".sql", ".py"):
            (tmp_path / path.name).write_text(path.read_text())
    assert examine(folder=tmp_path)["projections"].verdict == "ok"
    (tmp_path / "fresh.sql").write_text("SELECT action, count(*) AS n FROM events GROUP BY action")
    found = examine(folder=tmp_path)["projections"]
    assert found.verdict == "warn" and "fresh (new)" in found.found
    (tmp_path / "fresh.sql").write_text("SELECT random() AS n FROM events")
    assert examine(folder=tmp_path)["projections"].verdict == "fail"
    assert examine(folder=None)["projections"].verdict == "unseen"


@pytest.mark.live("shop")
def test_what_nobody_is_there_to_notice(database_url: str, admin: Connection, examine: Examine) -> None:
    """All workers are frozen, or none runs: no duty opens an incident."""
    make_live(database_url)
    admin.execute("UPDATE refold.settings SET lag_limit = 0")
    assert examine()["lag"].verdict == "ok"
    append(admin, events(3))
    assert examine()["lag"].verdict == "fail"
    assert ", and 6 more of 7" in examine()["lag"].found
    admin.execute("INSERT INTO refold.duties (name, started_at) VALUES ('progress', now() - interval '75 s')")
    with psycopg.connect(database_url, application_name="refold worker"):
        found = examine()["workers"]
        assert (found.verdict, "1 connected but idle" in found.found) == ("fail", True)
        admin.execute("UPDATE refold.duties SET started_at = now()")
        assert examine()["workers"].verdict == "ok"
    drain(database_url)
    assert examine()["lag"].verdict == "ok"


def test_workers_who_do_not_see_others(server: ServerUnderTest, admin: Connection, examine: Examine) -> None:
    assert examine()["sight"].verdict == "ok"
    with (
        login(server, admin, "refold_worker") as url,
        psycopg.connect(url, application_name="refold duties") as duties,
    ):
        found = examine()["sight"]
        assert (found.verdict, found.remedy) == ("warn", f'GRANT pg_read_all_stats TO "{duties.info.user}";')
        # It is told itself as well, while no worker can be seen.
        assert examine(url)["sight"].verdict == "warn"
        admin.execute(sql.SQL("GRANT pg_read_all_stats TO {}").format(sql.Identifier(duties.info.user)))
        assert examine()["sight"].verdict == examine(url)["sight"].verdict == "ok"


@pytest.mark.live("shop")
def test_what_fails(database_url: str, admin: Connection, examine: Examine) -> None:
    table = make_live(database_url)["daily"]
    # Else the event would be quarantined.
    admin.execute("UPDATE refold.settings SET max_dead_letters = 0, too_many_dead_letters = 'stop'")
    admin.execute(f"ALTER TABLE {table} ADD CONSTRAINT broken CHECK (false) NOT VALID".encode())
    append(admin, events(1))
    drain(database_url)
    admin.execute("INSERT INTO refold.duties (name, failures, error) VALUES ('progress', 3, 'Boom: x')")
    detect(admin, "lag", "daily__1", by="lag and stall", evidence={})
    found = examine()
    assert found["metrics"].verdict == "fail" and "check constraint" in found["metrics"].found
    assert found["duties"].verdict == "warn" and "Boom" in found["duties"].found
    assert found["incidents"].verdict == "warn" and "1 lag" in found["incidents"].found


def test_dead_rows_count_when_autovacuum_had_its_time(
    admin: Connection, examine: Examine, connect: Callable[..., Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refold.inspect.doctor.room.DEAD_AT_LEAST", 1_000)
    # It may come in the middle of the test, and then it has had its time.
    admin.execute("ALTER TABLE refold.event_ids SET (autovacuum_vacuum_threshold = 1000000)")
    append(admin, events(100))
    other = connect()
    other.execute(
        "INSERT INTO refold.events (event_id, action, ts)"
        " SELECT 'dead' || n, 'x', now() FROM generate_series(1, 3000) AS n"
    )
    other.rollback()
    other.execute("SELECT pg_stat_force_next_flush()")
    other.rollback()

    def dead() -> bool:
        row = admin.execute("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'event_ids'").fetchone()
        return row is not None and row[0] >= 3_000

    wait_until(dead)
    assert examine()["autovacuum"].verdict == "ok"
    # The same, written long ago.
    admin.execute(
        "INSERT INTO refold.sealed_slices (slice, passed, sealed_at, events, upto, ids, hash)"
        " SELECT n, '3', clock_timestamp() - interval '1 h', 0, '3', 0, 0 FROM generate_series(0, 200) AS n"
    )
    found = examine()["autovacuum"]
    assert (found.verdict, "3,000 dead rows beside" in found.found) == ("fail", True)
    # It has come by.
    for table in ("refold.event_ids", "refold.events"):
        admin.execute(f"VACUUM {table}".encode())
    assert examine()["autovacuum"].verdict == "ok"


@pytest.mark.parametrize(
    ("remedy", "works", "standby", "told"),
    [
        ("`refold deploy` recreates it.", True, False, "`refold deploy` recreates it."),
        (
            "`refold deploy` recreates it.",
            False,
            False,
            "`refold deploy` recreates it. (ann may not: it is for a login that may act as refold_worker)",
        ),
        (
            "Run `refold migrate`.",
            False,
            False,
            "Run `refold migrate`. (ann may not: it is for the owner of the database)",
        ),
        ("`refold worker` starts one.", True, True, "On the primary: `refold worker` starts one."),
        ("GRANT pg_monitor TO x;", False, True, "On the primary: GRANT pg_monitor TO x;"),
        ("`refold incidents --open` has the evidence.", False, True, "`refold incidents --open` has the evidence."),
        ("", False, True, ""),
    ],
)
def test_advice_says_who_may_follow_it(remedy: str, works: bool, standby: bool, told: str) -> None:
    [check] = addressed([Check("x", "warn", "y", remedy)], "ann", works=works, standby=standby)
    assert check.remedy == told


def test_each_wrong_file_is_a_line_of_its_own(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_text("SELECT acton FROM events")
    (tmp_path / "b.sql").write_text("VACUUM")
    with psycopg.connect(database_url, autocommit=True) as conn:
        found = [check for check in doctor(conn, database_url, tmp_path) if check.name == "projections"]
    assert [(check.verdict, check.found.split(": ")[1]) for check in found] == [
        ("fail", "events has no column acton. Did you mean action?"),
        ("fail", "a projection is one SELECT, not VACUUM"),
    ]
    assert all(check.remedy and "\n" not in check.found for check in found)


def test_an_observer_is_not_told_to_deploy(
    server: ServerUnderTest, admin: Connection, examine: Examine, database_url: str, tmp_path: Path
) -> None:
    make_live(database_url)
    with login(server, admin, "refold_observer") as url:
        advice = examine(url, tmp_path)["projections"].remedy
    assert advice.startswith("`refold deploy --dry-run` shows the plan. (refold_patient_")
    assert advice.endswith("may not: it is for a login that may act as refold_worker)")
    assert examine(folder=tmp_path)["projections"].remedy == "`refold deploy --dry-run` shows the plan."
