"""The archive after an erasure: no file holds the person, and every file is proved."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from refold import append
from refold.cli.erase import left
from refold.engine.archive import ownership, write
from refold.engine.archive.failures import Differs, StoreFailed, arrow
from refold.engine.archive.restore import restore
from refold.engine.archive.verify import verify
from refold.engine.erasure import run as run_part
from refold.engine.erasure.again import parsed
from refold.engine.erasure.archive import KEPT
from refold.engine.erasure.proof import sha256_of
from refold.engine.erasure.run import erase, go_on
from refold.engine.scrub.scrub import scrub
from refold.model.erasure import Person
from refold.store import erasures
from refold.store.builds.compiled import Compiler
from refold.store.erasures import Erasure, Mode
from tests.engine.archive.conftest import SLICE
from tests.engine.archive.conftest import Shop as ArchiveShop
from tests.engine.archive.conftest import shop as archive_shop  # noqa: F401
from tests.support.law import worker_connection
from tests.support.tampering import tamper
from tests.support.waiting import wait_until

ALICE = "alice@example"


def files(shop: ArchiveShop) -> dict[str, list[object]]:
    """The user ids in each file of the store, read by pyarrow alone."""
    return {
        path.name: arrow("pyarrow.parquet").read_table(path)["user_id"].to_pylist()
        for path in sorted(Path(shop.location, "log").rglob("*.parquet"))
    }


def with_alice(shop: ArchiveShop, *, archived: bool = True) -> None:
    """Gives events in the first and the third segment to the person, before anything is sealed again."""
    tamper(shop.admin, f"UPDATE refold.events SET user_id = '{ALICE}' WHERE event_id IN ('s0-1', 's0-2', 's2-4')")
    tamper(
        shop.admin,
        "UPDATE refold.event_ids AS k SET digest = refold.digest(e.user_id, e.action, e.ts, e.metadata, e.version)"
        " FROM refold.events AS e WHERE e.event_id = k.event_id",
    )
    shop.admin.execute("DELETE FROM refold.sealed_slices")
    shop.seal(3)
    shop.claim()
    if archived:
        shop.run()


def erased(shop: ArchiveShop, mode: Mode = "anonymise") -> Erasure:
    return erase(shop.worker, None, Person(ALICE), mode=mode, keeps=[], reason="asked")


def test_a_file_that_is_written_while_the_log_changes(
    archive_shop: ArchiveShop, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    """It holds the events as everybody else still sees them, and is not proved by checksums that are about to go."""
    with_alice(archive_shop, archived=False)
    finish, waits = run_part.finish, "wait_event_type = 'Lock' AND query LIKE '%sealed_slices%FOR SHARE'"
    with ThreadPoolExecutor(1) as pool, worker_connection(archive_shop.url) as other:
        written: list[Future[object]] = []

        def meanwhile(point: str) -> None:
            if point == "erasure_healed" and not written:
                written.append(pool.submit(write.run, other, by="the test", older_than_s=0))
                blocked = f"SELECT FROM pg_stat_activity WHERE {waits}".encode()
                wait_until(lambda: written[0].done() or archive_shop.admin.execute(blocked).rowcount > 0, 60)

        def afterwards(*arguments: Any, **more: Any) -> Erasure:
            assert isinstance(written[0].exception(), Differs | None)
            return finish(*arguments, **more)

        monkeypatch.setattr("refold.engine.erasure.log.failpoint", meanwhile)
        monkeypatch.setattr(run_part, "finish", afterwards)
        erased(archive_shop)
    archive_shop.run()
    after = files(archive_shop)
    assert len(after) == 3 and not any(ALICE in users for users in after.values())


@pytest.mark.parametrize("mode", ["anonymise", "delete"])
def test_files_are_written_again_and_the_former_ones_removed(archive_shop: ArchiveShop, mode: Mode) -> None:  # noqa: F811
    with_alice(archive_shop)
    before = files(archive_shop)
    assert sum(ALICE in users for users in before.values()) == 2
    proof = erased(archive_shop, mode).evidence["proof"]
    after = files(archive_shop)
    assert len(after) == 3 and not any(ALICE in users for users in after.values())
    # The file of the second segment is the same.
    assert len(before.keys() & after.keys()) == 1
    assert sorted(archive_shop.states()) == [
        (1, "gone"),
        (1, "gone"),
        (1, "verified"),
        (2, "verified"),
        (2, "verified"),
    ]
    found = verify(archive_shop.worker, by="the test", deep=True)
    assert (found.files, found.wrong, found.strangers) == (3, [], {})
    assert [(one["removed"], one["sha256"] != one["former_sha256"]) for one in proof["archive"]] == [(True, True)] * 2
    assert scrub(archive_shop.worker).damage == []
    # What stands in the place of the events can be restored, and the person cannot.
    tamper(archive_shop.admin, "DELETE FROM refold.events WHERE position < 5")
    assert restore(archive_shop.worker, f"refold.events_{1:015}", by="the test").slices == [0]
    assert scrub(archive_shop.worker).damage == []


def test_the_record_and_the_proof_are_in_the_store(archive_shop: ArchiveShop) -> None:  # noqa: F811
    with_alice(archive_shop)
    done = erased(archive_shop)
    content = archive_shop.store.read(f"erasures/{done.name}.json")
    assert content is not None and ALICE.encode() not in content
    told = parsed(content)
    assert told["proof"] == done.evidence["proof"]
    assert told["proof"]["sha256"] == sha256_of(told["proof"])
    assert len(told["erasures"][0]["events"]) == 3


def test_a_store_that_fails_leaves_the_rest_to_a_worker(archive_shop: ArchiveShop) -> None:  # noqa: F811
    with_alice(archive_shop)
    away = Path(archive_shop.location).rename(Path(archive_shop.location).with_name("away"))
    with pytest.raises(StoreFailed):
        erased(archive_shop)
    [erasure] = erasures.unfinished(archive_shop.worker)
    assert erasure.step == "archive"
    away.rename(archive_shop.location)
    done = go_on(archive_shop.worker, Compiler(None), erasure)
    assert done.step == "done"
    assert not any(ALICE in users for users in files(archive_shop).values())


def test_a_copy_leaves_the_files_to_their_owner(archive_shop: ArchiveShop) -> None:  # noqa: F811
    with_alice(archive_shop)
    archive_shop.store.replace(ownership.MARKER, ownership._marker(archive_shop.worker, "another", "turn"))
    before = files(archive_shop)
    proof = erased(archive_shop).evidence["proof"]
    assert files(archive_shop) == before
    assert any("belongs to another database" in one for one in proof["not_provable"])


def test_a_file_of_an_earlier_claim_is_named_and_stays(archive_shop: ArchiveShop) -> None:  # noqa: F811
    with_alice(archive_shop)
    archive_shop.claim()
    done = erased(archive_shop)
    proof = done.evidence["proof"]
    assert [one["removed"] for one in proof["archive"]] == [False, False]
    # Anybody who reads the store finds the person.
    assert left(done) == {KEPT: 2}
    assert proof["places"][KEPT] == {"before": 0, "after": 2}
    assert sum("earlier claim" in one or "another claim" in one for one in proof["not_provable"]) == 2


def test_events_that_the_log_has_lost_are_found_in_files_that_do_not_count(archive_shop: ArchiveShop) -> None:  # noqa: F811
    with_alice(archive_shop)
    archive_shop.admin.execute("UPDATE refold.archives SET state = 'replaced' WHERE lower_position = 1")
    tamper(archive_shop.admin, f"DELETE FROM refold.events WHERE user_id = '{ALICE}' AND position < {SLICE}")
    tamper(archive_shop.admin, "DELETE FROM refold.event_ids WHERE event_id IN ('s0-1', 's0-2')")
    archive_shop.admin.execute("DELETE FROM refold.sealed_slices")
    archive_shop.seal(3)
    archive_shop.run()
    append(archive_shop.admin, [])
    proof = erased(archive_shop).evidence["proof"]
    assert sum("which the log has lost" in one or "that the log has lost" in one for one in proof["not_provable"]) == 1


def test_a_file_that_was_lost_and_is_there_again(archive_shop: ArchiveShop) -> None:  # noqa: F811
    """It does not count, and nobody has archived its segment anew: an erasure does, and removes it."""
    with_alice(archive_shop)
    first = min(Path(archive_shop.location, "log").rglob("*.parquet"))
    kept = first.read_bytes()
    first.unlink()
    assert verify(archive_shop.worker, by="the test").wrong != []
    first.write_bytes(kept)
    assert erased(archive_shop).step == "done"
    assert len(files(archive_shop)) == 3
    assert not any(ALICE in users for users in files(archive_shop).values())
