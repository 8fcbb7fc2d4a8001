"""What is in the way of a purge: each condition once, alone, with its remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from refold.engine.archive.failures import Differs, NotOwner
from refold.engine.archive.restore import restore
from refold.engine.deployment.deploy import deploy
from refold.engine.deployment.drop import drop
from refold.engine.publish.switch import drop_retired
from refold.engine.purge.purge import Purged
from refold.errors import BuildError
from refold.model.projection.definition import load_directory
from refold.postgres.locks import alone
from refold.postgres.rows import one_row
from refold.store import archives
from refold.store.builds.build import find
from tests.engine.purge.conftest import ENDS, PROJECT, SLICE, Yard
from tests.support.tampering import tamper

pytestmark = pytest.mark.live("archived")


def reasons(done: Purged) -> list[str]:
    return [] if done.stopped_at is None else [one.reason for one in done.stopped_at.obstacles]


def refused(yard: Yard, because: str) -> None:
    """Nothing is purged, for this reason alone; without folding there may be others."""
    done = yard.purge()
    assert [because in one for one in reasons(done) if "has folded 0 %" not in one] == [True], reasons(done)
    assert done.segments == []
    assert {one.floor for one in yard.builds()} == {1}
    assert yard.admin.execute("SELECT refold.log_floor()").fetchone() == (1,)


def project(yard: Yard, folder: Path, **files: str) -> None:
    """Deploy the project with other files."""
    for path in PROJECT.iterdir():
        if path.is_file():
            (folder / path.name).write_text(path.read_text())
    for name, text in files.items():
        (folder / f"{name}.sql").write_text(text)
    deploy(yard.worker, folder, load_directory(folder), lambda progress: None)


def test_a_projection_that_recomputes(yard: Yard, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    middle = "SELECT user_id, mode() WITHIN GROUP (ORDER BY action) AS usual FROM events GROUP BY user_id"
    project(yard, folder, middle=middle)
    refused(yard, "middle recomputes from all events of a key")
    drop(yard.worker, ["middle"])
    # A rollback would lead back to it.
    refused(yard, "the retired build middle__")
    (retired,) = find(yard.worker, "b.state = 'retired'")
    assert drop_retired(yard.worker, retired.build_id, retired.table_name)
    assert len(yard.purge().segments) == 3


def test_a_build_that_has_not_applied_all(yard: Yard) -> None:
    cursor = "SELECT done::text FROM refold.builds_now WHERE projection = 'daily'"
    (done,) = one_row(yard.admin, cursor)
    yard.admin.execute("ALTER TABLE refold.cursors DISABLE TRIGGER USER")
    yard.admin.execute(
        "UPDATE refold.cursors AS c SET done = '5:5:' FROM refold.builds AS b"
        " WHERE b.build_id = c.build_id AND b.projection = 'daily'"
    )
    refused(yard, "daily has not applied all of it")
    yard.admin.execute(
        "UPDATE refold.cursors AS c SET done = %s FROM refold.builds AS b"
        " WHERE b.build_id = c.build_id AND b.projection = 'daily'",
        (done,),
    )
    assert len(yard.purge().segments) == 3


def test_a_build_that_is_being_loaded(yard: Yard) -> None:
    yard.admin.execute("UPDATE refold.builds SET loaded = false WHERE projection = 'by_user'")
    refused(yard, "is being loaded")


def test_no_verified_file(yard: Yard) -> None:
    yard.admin.execute("UPDATE refold.archives SET state = 'written' WHERE lower_position = 1")
    refused(yard, "no verified file")


def test_a_later_segment_waits_for_the_earlier(yard: Yard) -> None:
    yard.admin.execute("UPDATE refold.archives SET state = 'written' WHERE lower_position = %s", (ENDS[0],))
    done = yard.purge()
    assert (len(done.segments), reasons(done)) == (1, ["the archive has no verified file of it"])


def test_what_is_not_sealed_is_not_due(yard: Yard) -> None:
    yard.admin.execute(
        "UPDATE refold.sealed_slices SET sealed_at = NULL, events = NULL, upto = NULL, ids = NULL, hash = NULL,"
        " scrubbed_at = NULL WHERE slice = 0"
    )
    assert yard.purge().segments == []


def test_a_damaged_segment(yard: Yard) -> None:
    yard.admin.execute(
        "INSERT INTO refold.incidents (kind, subject, started_at, detected_by)"
        " VALUES ('log_damage', 'refold.events_000000000000001', now(), 'the test')"
    )
    refused(yard, "it is damaged")


def test_a_segment_that_is_missing(yard: Yard) -> None:
    yard.admin.execute("DROP TABLE refold.events_000000000000001")
    refused(yard, "the segment at position 1 is missing")


def gone(yard: Yard) -> None:
    (Path(yard.location) / archives.find(yard.worker)[0].location).unlink()


def shorter(yard: Yard) -> None:
    path = Path(yard.location) / archives.find(yard.worker)[0].location
    path.write_bytes(path.read_bytes()[:-1])


def another(yard: Yard) -> None:
    yard.admin.execute("UPDATE refold.archive_store SET owner = 'another'")


@pytest.mark.parametrize(("what", "error"), [(gone, Differs), (shorter, Differs), (another, NotOwner)])
def test_a_store_without_the_file(yard: Yard, what: Callable[[Yard], None], error: type[Exception]) -> None:
    what(yard)
    with pytest.raises(error):
        yard.purge()
    assert {one.floor for one in yard.builds()} == {1}


def test_a_deploy_that_runs(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refold.engine.purge.purge.LOCK_S", 0.5)
    monkeypatch.setattr("refold.engine.purge.purge.BUILDS", "200ms")
    with (
        alone(yard.worker, "refold.deployments", "deploy", "refold_worker"),
        pytest.raises(BuildError, match="a deploy ran"),
    ):
        yard.purge()
    assert len(yard.purge().segments) == 3


def test_a_base_of_other_events_is_folded_again(yard: Yard) -> None:
    """The archive's checksums are the judge, not the log as it stands."""
    first, *_ = yard.archive()
    tamper(yard.admin, f"DELETE FROM refold.events WHERE event_id = 'r0-3' AND position < {SLICE}")
    yard.fold(first)
    done = yard.purge()
    assert all("has folded other events" in one for one in reasons(done))
    assert (len(reasons(done)), done.segments) == (4, [])
    assert restore(yard.worker, first.segment, by="the test").events
    assert len(yard.purge().segments) == 3
    assert yard.wrong() == {}
