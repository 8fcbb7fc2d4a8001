"""What stands for purged events is compared with the archive, and healed from it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from refold.engine.archive.sources import Unreadable
from refold.engine.deployment.deploy import rebuild
from refold.engine.reconcile.archived import reconcile_archived
from refold.engine.reconcile.result import ReconcileReport
from refold.store import archives
from tests.engine.purge.conftest import PROJECT, Yard, yard  # noqa: F401
from tests.support.purging import let_go

pytestmark = pytest.mark.live("archived")


@pytest.fixture
def purged(yard: Yard) -> Iterator[Yard]:  # noqa: F811
    """Two of three full segments are purged; the border between them cuts a slice."""
    for archive in yard.archive()[:2]:
        yard.fold(archive)
        let_go(yard.admin, archive)
    yield yard


def audited(yard: Yard, *names: str, dry_run: bool = False) -> ReconcileReport:  # noqa: F811
    return reconcile_archived(yard.worker, yard.compiler, names, dry_run=dry_run, by="the test")


def table(yard: Yard, name: str, suffix: str = "") -> str:  # noqa: F811
    return f"refold_builds.{yard.build(name).table_name}{suffix}"


def damage(yard: Yard, statement: str) -> None:  # noqa: F811
    assert yard.admin.execute(statement.encode()).rowcount > 0


def test_nothing_is_found_where_nothing_is_wrong(purged: Yard) -> None:
    found = audited(purged)
    assert found.clean
    assert sorted(found.audited) == ["by_user", "clicks", "daily", "everything", "seen", "tagged"]
    left = "SELECT count(*) FROM pg_class WHERE relname ~ '^(archived|thawed)__'"
    assert purged.admin.execute(left).fetchone() == (0,)
    purged.look()


def test_beside_a_publication_of_all_tables(purged: Yard) -> None:
    """Which lets nobody update a table whose rows have no identity."""
    purged.admin.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    names = ["daily", "by_user", "seen", "everything", "clicks", "tagged"]
    rebuild(purged.worker, PROJECT, names, lambda progress: None, cascade=True)
    damage(purged, f"UPDATE {table(purged, 'daily', '__base')} SET events = events + 1")
    assert audited(purged).drift
    assert audited(purged).clean
    assert purged.wrong() == {}


ROWS = {
    "changed": "UPDATE {} SET user_id = 'forged' WHERE event_id = '{}'",
    "lost": "DELETE FROM {} WHERE event_id = '{}'",
    "foreign": "UPDATE {} SET event_id = event_id || '-forged' WHERE event_id = '{}'",
}


@pytest.mark.slow
@pytest.mark.parametrize("what", ROWS)
@pytest.mark.parametrize("name", ["clicks", "tagged"])
@pytest.mark.parametrize("part", ["r0-", "r40-"])
def test_rows_of_a_stream_and_their_readers(purged: Yard, name: str, what: str, part: str) -> None:
    of = table(purged, name)
    rows = purged.admin.execute(
        f"SELECT event_id FROM {of} WHERE event_id LIKE '{part}%' AND user_id IS NOT NULL".encode()
    ).fetchall()
    damage(purged, ROWS[what].format(of, rows[0][0]))
    looked = audited(purged, dry_run=True)
    assert looked.drift > 0
    assert looked.counts == audited(purged, name, dry_run=True).counts
    healed = audited(purged)
    assert healed.counts == looked.counts
    assert audited(purged).clean
    assert purged.wrong() == {}
    purged.look()
    assert purged.reconcile().clean
    assert purged.incidents() == []
    repairs = purged.admin.execute("SELECT DISTINCT projection FROM refold.repairs ORDER BY 1").fetchall()
    assert (name,) in repairs


BASES = {
    "a sum": ("daily", "__base", "UPDATE {} SET events = events + 1 WHERE ctid = (SELECT min(ctid) FROM {})"),
    "a row": ("by_user", "__base", "DELETE FROM {} WHERE ctid = (SELECT min(ctid) FROM {})"),
    "a key": ("seen", "__base", "UPDATE {} SET action = 'forged' WHERE ctid = (SELECT min(ctid) FROM {})"),
    "a value": ("daily", "__m1__base", "DELETE FROM {} WHERE ctid = (SELECT min(ctid) FROM {})"),
    "another value": (
        "everything", "__m1__base", "UPDATE {} SET member__ = 'forged' WHERE ctid = (SELECT min(ctid) FROM {})",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BASES)
def test_bases(purged: Yard, what: str) -> None:
    name, suffix, statement = BASES[what]
    of = table(purged, name, suffix)
    # Events of the next segment are folded already, and count for nothing yet.
    third = archives.find(purged.worker, "a.state = 'verified'")[0]
    purged.fold(third)
    if what == "a sum":
        (column,) = purged.admin.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
            " AND atttypid IN ('bigint'::regtype, 'numeric'::regtype) AND attname NOT LIKE %s ORDER BY attnum LIMIT 1",
            (of, r"%\_\_"),
        ).fetchone() or ("",)
        statement = statement.replace("events", str(column))
    damage(purged, statement.format(of, of))
    looked = audited(purged, dry_run=True)
    assert looked.drift > 0
    assert audited(purged, dry_run=True).counts == looked.counts
    assert audited(purged).counts == looked.counts
    assert audited(purged).clean
    assert purged.reconcile().clean
    purged.look()
    purged.fold(third)
    let_go(purged.admin, third)
    purged.look()
    assert purged.wrong() == {}


def test_a_table_that_was_healed_from_a_wrong_base(purged: Yard) -> None:
    """Once the base is right again, the audit of the table heals what depends on it."""
    base, own = table(purged, "by_user", "__base"), table(purged, "by_user")
    damage(
        purged, f"DELETE FROM {base} WHERE user_id = (SELECT min(user_id) FROM refold.events WHERE action <> 'noise')"
    )
    damage(
        purged, f"DELETE FROM {own} WHERE user_id = (SELECT min(user_id) FROM refold.events WHERE action <> 'noise')"
    )
    assert audited(purged).drift > 0
    assert purged.reconcile().drift > 0
    assert purged.wrong() == {}
    purged.look()


def test_a_missing_file_changes_nothing(purged: Yard) -> None:
    damage(purged, f"DELETE FROM {table(purged, 'daily', '__base')}")
    file = archives.find(purged.worker, "a.state = 'purged'")[1]
    Path(purged.location, file.location).unlink()
    with pytest.raises(Unreadable):
        audited(purged, "daily")
    assert purged.admin.execute("SELECT count(*) FROM pg_class WHERE relname ~ '^archived__'").fetchone() == (0,)
    assert purged.admin.execute("SELECT count(*) FROM refold.repairs").fetchone() == (0,)


@pytest.mark.slow
def test_killed_it_begins_again(purged: Yard) -> None:
    damage(purged, f"DELETE FROM {table(purged, 'daily', '__base')}")
    environment = {**os.environ, "REFOLD_DATABASE_URL": purged.url, "REFOLD_CRASH_AT": "audit_archived"}
    command = [sys.executable, "-m", "refold", "reconcile", "--archive", "--projections", str(PROJECT)]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    del environment["REFOLD_CRASH_AT"]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60)
    assert done.returncode == 1, done.stderr.decode()
    assert b"daily" in done.stdout
    assert purged.wrong() == {}
    purged.look()
