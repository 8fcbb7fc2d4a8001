"""The cold ledger is verified, made again from the archive, and survives every recovery."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from refold import append
from refold.engine.archive import ledger
from refold.engine.archive.advance import advance
from refold.engine.archive.find import find_event
from refold.engine.archive.sources import Unreadable
from refold.engine.archive.write import run
from refold.engine.recovery.recovery import recover
from refold.engine.scrub import rolling
from refold.engine.scrub.scrub import scrub
from refold.errors import DatabaseError
from refold.postgres.connect import connect as connect_as
from refold.store import archives
from refold.store.log import cold_ledger
from tests.conftest import ServerUnderTest
from tests.engine.archive.conftest import ODD, SLICE, Shop
from tests.support.logins import login
from tests.support.making import events
from tests.support.purging import chill_all, let_go

PURGED = 2 * 5 + len(ODD)


@pytest.fixture
def purged(shop: Shop) -> Iterator[Shop]:
    """Two of three archived segments are purged, and their ids are cold."""
    shop.claim()
    shop.run()
    for archive in shop.manifest()[:2]:
        let_go(shop.admin, archive)
    chill_all(shop.worker)
    yield shop


def retried(shop: Shop) -> set[str]:
    """The answers when everything that was purged comes once more."""
    again = [*events(5, "s0-"), *ODD, *events(5, "s1-")]
    return {str(receipt.answer) for receipt in append(shop.admin, again)}


DAMAGE = {
    "an id": "UPDATE refold.cold_ids SET ids = ids[:cardinality(ids) - 1] || 4711::bigint",
    "a digest": "UPDATE refold.cold_ids SET digests = array_append(digests[:cardinality(ids) - 1], 4711)",
    "emptied": "UPDATE refold.cold_ids SET ids = '{}', digests = '{}'",
    "an older version": "UPDATE refold.cold_ids SET ids = '{}', digests = '{}',"
    " checksum = refold.cold_checksum('{}', '{}')",
    "a bucket": "ALTER TABLE refold.cold_ids DISABLE TRIGGER USER; DELETE FROM refold.cold_ids;"
    " ALTER TABLE refold.cold_ids ENABLE ALWAYS TRIGGER refuse_change",
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_found_and_mended_from_the_archive(purged: Shop, what: str) -> None:
    assert scrub(purged.worker).damage == []
    before = purged.admin.execute("SELECT * FROM refold.cold_ids ORDER BY 1").fetchall()
    for statement in DAMAGE[what].split(";"):
        purged.admin.execute(statement.encode())
    (found,) = scrub(purged.worker).damage
    assert (found.segment, found.fault) == ("refold.cold_ids", "checksums")
    assert purged.incidents() == [("log_damage", "refold.cold_ids")]
    assert ledger.restore(purged.worker, by="the test", dry_run=True).after is None
    done = ledger.restore(purged.worker, by="the test")
    assert done.after is not None and done.after.intact, str(done.after)
    assert purged.admin.execute("SELECT * FROM refold.cold_ids ORDER BY 1").fetchall() == before
    assert (scrub(purged.worker).damage, purged.incidents()) == ([], [])
    assert retried(purged) == {"duplicate"}


def test_the_duty_finds_damage_part_by_part(purged: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    purged.admin.execute(DAMAGE["a digest"])
    monkeypatch.setattr(rolling, "COLD_PARTS", 1)
    rolling.step(purged.worker)
    assert purged.incidents() == [("log_damage", "refold.cold_ids")]
    # Metrics do not depend on it, and it stays open until all of it was found intact.
    rolling.step(purged.worker)
    assert purged.incidents() == [("log_damage", "refold.cold_ids")]


def test_every_part_is_one_of_all(purged: Shop) -> None:
    looks = [cold_ledger.look_at_part(purged.worker, part, 7) for part in range(7)]
    assert sum(one.ids for one in looks) == cold_ledger.look(purged.worker).ids == PURGED


def test_what_was_erased_stays_so(purged: Shop) -> None:
    purged.admin.execute("SELECT refold.silence_ids('{s1-2}')")
    purged.admin.execute("UPDATE refold.cold_ids SET checksum = gen_random_uuid()")
    ledger.restore(purged.worker, by="the test")
    other = events(5, "s1-", action="other")
    assert [str(one.answer) for one in append(purged.admin, other[1:3])] == ["conflict", "duplicate"]


def test_without_the_archive_nothing_is_changed(purged: Shop) -> None:
    Path(purged.location, purged.manifest()[0].location).unlink()
    purged.admin.execute(DAMAGE["emptied"])
    with pytest.raises(Unreadable, match="cannot be read from the archive"):
        ledger.restore(purged.worker, by="the test")
    assert not cold_ledger.look(purged.worker).intact


def test_only_the_owner_mends_it(purged: Shop, server: ServerUnderTest) -> None:
    purged.admin.execute(DAMAGE["emptied"])
    with (
        login(server, purged.admin, "refold_worker") as url,
        connect_as(url, "refold_worker", autocommit=True) as conn,
        pytest.raises(DatabaseError, match="may not act as refold_owner"),
    ):
        ledger.restore(conn, by="the test")


def test_an_event_is_found_by_its_id(purged: Shop) -> None:
    for event_id in ("s1-3", *(one["id"] for one in ODD)):
        found = find_event(purged.worker, event_id)
        assert found is not None and found.row["event_id"] == event_id
        assert found.archive == purged.manifest()[event_id == "s1-3"]
    assert find_event(purged.worker, "s2-1") is None
    # Where the position is known, one file is read.
    Path(purged.location, purged.manifest()[0].location).unlink()
    assert find_event(purged.worker, "s1-3", SLICE + 1) is not None
    with pytest.raises(Unreadable):
        find_event(purged.worker, "s0-1")


@pytest.mark.parametrize("moved", [True, False])
def test_a_recovery_keeps_every_archived_id(shop: Shop, moved: bool) -> None:
    """Also those that are in the ledger still: their events are not lost."""
    shop.claim()
    shop.run()
    for archive in shop.manifest()[:2]:
        let_go(shop.admin, archive)
    if moved:
        chill_all(shop.worker)
    shop.admin.execute("UPDATE refold.settings SET system_identifier = 4711")
    report = recover(shop.worker, None)
    assert report.survey.ledger.lost == 0
    assert report.manifest.as_dict() == {
        "gone": [], "found": [], "taken": [], "strangers": [], "lost": [], "failed": None,
    }  # fmt: skip
    assert shop.admin.execute("SELECT count(*) FROM refold.lost_events").fetchone() == (0,)
    assert retried(shop) == {"duplicate"}
    chill_all(shop.worker)
    assert retried(shop) == {"duplicate"}
    assert scrub(shop.worker).damage == []


def test_a_recovery_on_a_server_with_other_hash_functions(purged: Shop) -> None:
    purged.admin.execute("UPDATE refold.settings SET hash_probe = hash_probe[2:]")
    purged.admin.execute(
        "UPDATE refold.cold_ids AS c SET digests = d.x, checksum = refold.cold_checksum(c.ids, d.x)"
        " FROM refold.cold_ids AS k CROSS JOIN LATERAL (SELECT array_agg(x # 77) FROM unnest(k.digests) AS x) AS d (x)"
        " WHERE k.bucket = c.bucket"
    )
    assert retried(purged) == {"conflict"}
    reasons = purged.admin.execute("SELECT DISTINCT reason FROM refold.rejected").fetchall()
    assert reasons == [("the archive holds an event with this id, whose content `refold recover` can compare",)]
    assert recover(purged.worker, None).cold > 0
    assert retried(purged) == {"duplicate"}


def test_an_older_backup_learns_what_was_archived_since(shop: Shop) -> None:
    """Its manifest knows one file of three, and names another that was removed."""
    shop.claim()
    shop.run()
    known = shop.manifest()
    shop.admin.execute("DELETE FROM refold.archives WHERE lower_position > 1")
    found = advance(shop.worker, by="the test")
    assert sorted(found.found) == sorted(one.location for one in known[1:])
    assert (found.gone, found.taken, found.lost, found.strangers) == ([], [], [], [])
    # They count when they were read back, and are not written once more.
    assert run(shop.worker, by="the test", older_than_s=0).written == []
    assert [one.location for one in shop.manifest()] == [one.location for one in known]
    assert shop.states() == [(1, "verified")] * 3
    Path(shop.location, known[2].location).unlink()
    assert advance(shop.worker, by="the test").gone == [known[2].location]
    assert shop.states()[2] == (1, "gone")


def test_an_older_backup_takes_the_newer_generation_of_a_purged_segment(purged: Shop) -> None:
    """The file was rewritten since, and the former one removed."""
    first = purged.manifest()[0]
    path = Path(purged.location) / first.location
    newer = path.with_name(path.name.replace(".g1.", ".g2."))
    path.rename(newer)
    other = newer.with_name(newer.name.replace(".g2.", ".g3."))
    other.write_bytes((Path(purged.location) / purged.manifest()[1].location).read_bytes())
    found = advance(purged.worker, by="the test")
    name = str(newer.relative_to(purged.location))
    assert (found.gone, found.taken, found.lost) == ([first.location], [name], [])
    assert [(one.state, one.location) for one in archives.find(purged.worker, "a.lower_position = 1")] == [
        ("gone", first.location),
        ("purged", name),
    ]
    assert find_event(purged.worker, "s0-1") is not None
    assert scrub(purged.worker).damage == []


def test_a_purged_segment_without_any_file_is_an_incident(purged: Shop) -> None:
    first = purged.manifest()[0]
    Path(purged.location, first.location).unlink()
    found = advance(purged.worker, by="the test")
    assert (found.gone, found.lost) == ([first.location], [first.segment])
    assert purged.incidents() == [("archive_damage", first.segment)]
    # It stays in the manifest: it may come back.
    assert purged.manifest()[0].state == "purged"


def test_a_store_that_does_not_answer_stops_no_recovery(purged: Shop) -> None:
    folder = Path(purged.location)
    folder.rename(folder.with_name("unmounted"))
    report = recover(purged.worker, None)
    assert report.manifest.failed is not None
    assert retried(purged) == {"duplicate"}
