"""Where a purged event is: what the database knows of it, and what the archive tells on request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from refold.engine.archive.sources import Unreadable
from refold.engine.erasure.run import erase
from refold.inspect.lineage.where import Purged, where
from refold.model.erasure import Person
from refold.store.archives import Archive
from tests.engine.purge.conftest import PROJECT, Yard, yard  # noqa: F401
from tests.support.backfilling import command
from tests.support.purging import chill_all, let_go

pytestmark = pytest.mark.live("archived")


@pytest.fixture
def first(yard: Yard) -> Iterator[Archive]:  # noqa: F811
    archive = yard.archive()[0]
    yard.fold(archive)
    let_go(yard.admin, archive)
    yield archive


def test_the_file_is_known_as_long_as_the_ledger_has_the_position(yard: Yard, first: Archive) -> None:  # noqa: F811
    before = where(yard.worker, yard.compiler, "r0-3")
    assert (before.event, before.registered, before.purged) == (None, True, Purged(file=first.location))
    chill_all(yard.worker)
    assert where(yard.worker, yard.compiler, "r0-3").purged == Purged()
    # An event of the log is none of it.
    assert where(yard.worker, yard.compiler, "r120-3").purged is None


@pytest.mark.parametrize("cold", [True, False])
def test_the_archive_tells_the_event_and_its_rows(yard: Yard, first: Archive, cold: bool) -> None:  # noqa: F811
    if cold:
        chill_all(yard.worker)
    found = where(yard.worker, yard.compiler, "r0-3", archive=True)
    assert found.purged == Purged(looked=True, file=first.location)
    assert found.event is not None
    given = yard.admin.execute(
        "SELECT txid::text::bigint, position, user_id, action, ts, version FROM everything WHERE event_id = 'r0-3'"
    ).fetchone()
    event = found.event
    assert (event.txid, event.position, event.user_id, event.action, event.ts, event.version) == given
    rows = {one.metric: (one.state, [row.shown for row in one.rows]) for one in found.metrics}
    assert rows["daily"] == rows["clicks"] == rows["paths"] == ("in rows", [True])


def test_after_a_recovery_rows_are_found_by_the_present_coordinates(yard: Yard, first: Archive) -> None:  # noqa: F811
    table = yard.build("clicks").table_name
    yard.admin.execute("UPDATE refold.archives SET rewritten = true WHERE state = 'purged'")
    yard.admin.execute(f"UPDATE refold_builds.{table} SET txid = '2' WHERE event_id = 'r0-3'".encode())
    found = where(yard.worker, yard.compiler, "r0-3", archive=True)
    assert [one.state for one in found.metrics if one.metric == "clicks"] == ["in rows"]


def test_an_erased_event(yard: Yard, first: Archive) -> None:  # noqa: F811
    chill_all(yard.worker)
    yard.admin.execute("SELECT refold.silence_ids('{r0-3}')")
    assert where(yard.worker, yard.compiler, "r0-3").purged == Purged(erased=True)
    # Anonymised: the archive has what is left.
    found = where(yard.worker, yard.compiler, "r0-3", archive=True)
    assert found.purged == Purged(looked=True, file=first.location, erased=True)
    assert found.event is not None


def test_an_event_that_was_deleted(yard: Yard, first: Archive) -> None:  # noqa: F811
    erase(yard.worker, PROJECT, Person("u7"), mode="delete", keeps=[], reason="asked")
    chill_all(yard.worker)
    found = where(yard.worker, yard.compiler, "r0-3", archive=True)
    assert (found.event, found.purged) == (None, Purged(looked=True, erased=True))


@pytest.mark.slow
def test_the_command(yard: Yard, first: Archive) -> None:  # noqa: F811
    chill_all(yard.worker)
    folder = ("--projections", str(PROJECT))
    assert "--archive reads the archive" in command(yard.url, "where", "r0-3", *folder).stdout
    told = command(yard.url, "where", "r0-3", "--archive", *folder).stdout
    assert first.location in told and "in rows" in told
    answer = json.loads(command(yard.url, "where", "r0-3", "--archive", "--json", *folder).stdout)
    assert answer["purged"] == {"looked": True, "file": first.location, "erased": False}
    Path(yard.location, first.location).unlink()
    failed = command(yard.url, "where", "r0-3", "--archive", *folder)
    assert failed.returncode == 2 and "refold archive verify --deep" in failed.stderr
    with pytest.raises(Unreadable):
        where(yard.worker, yard.compiler, "r0-3", archive=True)
