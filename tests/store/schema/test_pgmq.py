"""pgmq is installed once: from its package, unless it is there."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from refold.errors import DatabaseError
from refold.inspect.doctor.sinks import queue
from refold.store.schema import pgmq
from tests.support.logins import login

Connection = psycopg.Connection[Any]


@pytest.fixture
def admin(conn: Connection) -> Connection:
    conn.autocommit = True
    return conn


def test_a_migration_installs_it_from_its_package(admin: Connection) -> None:
    now = pgmq.state(admin)
    assert (now.extension, now.present, now.installed) == (None, True, pgmq.packaged_version())
    assert admin.execute(
        "SELECT nspowner::regrole::text, has_database_privilege('refold_worker', current_database(), 'CREATE')"
        " FROM pg_namespace WHERE nspname = 'pgmq'"
    ).fetchone() == ("refold_worker", False)
    [check] = queue(admin)
    assert (check.verdict, check.found) == ("ok", f"{pgmq.packaged_version()}, from its package")
    # A second time changes nothing.
    pgmq.install(admin)
    assert pgmq.state(admin) == now


def test_what_somebody_else_installed_is_used(admin: Connection) -> None:
    admin.execute("DROP SCHEMA pgmq CASCADE")
    text = (pgmq._package() / "pgmq.sql").read_bytes()
    admin.execute(text)
    admin.execute("SELECT pgmq.create('theirs')")
    pgmq.install(admin)
    now = pgmq.state(admin)
    assert (now.present, now.installed) == (True, None)
    assert admin.execute("SELECT queue_name FROM pgmq.meta").fetchall() == [("theirs",)]
    admin.execute("SET ROLE refold_worker")
    admin.execute("SELECT pgmq.create('ours')")
    admin.execute("SELECT pgmq.drop_queue('ours')")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        admin.execute("SELECT pgmq.drop_queue('theirs')")


def test_without_the_right_to_share_it_the_remedy_is_told(server: Any, admin: Connection) -> None:
    admin.execute("DROP SCHEMA pgmq CASCADE")
    admin.execute((pgmq._package() / "pgmq.sql").read_bytes())
    with login(server, admin) as url, psycopg.connect(url, autocommit=True) as conn:
        with pytest.raises(DatabaseError, match="belongs to another role") as caught:
            pgmq.install(conn)
        assert "GRANT USAGE, CREATE ON SCHEMA pgmq TO refold_worker" in (caught.value.remedy or "")


def test_doctor_says_that_it_is_missing(admin: Connection) -> None:
    admin.execute("DROP SCHEMA pgmq CASCADE")
    [check] = queue(admin)
    assert (check.verdict, check.remedy) == ("fail", "Run `refold migrate`.")
