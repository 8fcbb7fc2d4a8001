"""What is in the way of a purge: each condition once, alone, with its remedy."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from refold.engine.archive.failures import Differs, NotOwner
from refold.engine.archive.restore import restore
from refold.engine.deployment.deploy import deploy
from refold.engine.deployment.drop import drop
from refold.engine.publish.switch import drop_retired
from refold.engine.purge.conditions import Obstacle, obstacles
from refold.engine.purge.purge import Purged, purge
from refold.errors import BuildError, InputError
from refold.model.projection.definition import load_directory
from refold.model.sink.state import collapsed, paused, resumed
from refold.postgres.locks import alone
from refold.postgres.rows import one_row
from refold.sinks.skip import look, skip
from refold.store import archives, sinks, undelivered
from refold.store.builds.build import find
from tests.engine.purge.conftest import ENDS, PROJECT, SLICE, Yard
from tests.support.delivering import SECRET, deliver, deploy_sink, to_webhook
from tests.support.receiving import Received, hook
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


@pytest.mark.slow
def test_a_sink_that_has_not_delivered_all(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paused, then away, then refusing rows: the purge names the command that lets go, and then goes."""
    monkeypatch.setenv("SECRET", SECRET)
    with hook() as receiver:
        sink = deploy_sink(yard.worker, "crm", 'grain = "events"\n' + to_webhook("clicks", receiver.url))
        with yard.worker.transaction():
            sinks.step(yard.worker, sink.sink_id, lambda now, at: paused(now))
        refused(yard, "sink crm has not delivered all of it")
        remedy = obstacle(yard).remedy
        assert "`refold sinks resume crm`" in remedy and f"`refold sinks skip crm --to {ENDS[0]}`" in remedy
        # To look holds nothing, and lets nothing go.
        seen = look(yard.worker, sink, ENDS[0])
        assert (seen.segments, seen.nothing) == (("refold.events_000000000000001",), False)
        refused(yard, "sink crm has not delivered all of it")
        skip(yard.worker, sink, seen, "the test")
        done = yard.purge()
        assert (len(done.segments), reasons(done)) == (1, ["sink crm has not delivered all of it"])

        def answer(request: Received, handler: object) -> tuple[int, dict[str, str]]:
            return (422 if len(request.changes) > 1 or request.changes[0]["row"]["action"] == "buy" else 200), {}

        receiver.answer = answer
        with yard.worker.transaction():
            sinks.step(yard.worker, sink.sink_id, lambda now, at: resumed(now))
        assert deliver(yard.worker, PROJECT, "crm")
        assert reasons(yard.purge()) == [
            "sink crm: its receiver refuses "
            f"{sum(ENDS[0] <= at < ENDS[1] for at in undelivered.positions(yard.worker, sink.sink_id).values() if at)}"
            " rows of it"
        ]
        assert f"`refold sinks skip crm --to {ENDS[1]}`" in obstacle(yard).remedy
        with yard.worker.transaction(force_rollback=True):
            sinks.step(yard.worker, sink.sink_id, lambda now, at: collapsed(now))
            first = archives.find(yard.worker, "a.state = 'verified'")[0]
            (found,) = [one for one in obstacles(yard.worker, *ENDS[:2], first.segment) if "sink" in one.reason]
            assert "`refold sinks undelivered crm --drop" in found.remedy and "skip" not in found.remedy
        seen = look(yard.worker, sink, ENDS[1])
        assert seen.segments == (f"refold.events_{ENDS[0]:015}",) and seen.refused and not seen.rows
        skip(yard.worker, sink, seen, "the test")
        assert len(yard.purge().segments) == 1
        skip(yard.worker, sink, look(yard.worker, sink, None), "the test")
        assert len(yard.purge().segments) == 1
        for to in (1, ENDS[2] - 1):
            with pytest.raises(InputError, match=f"whose positions go from {ENDS[2]:,} to"):
                look(yard.worker, sink, to)
        with pytest.raises(InputError, match=f"the log begins at position {ENDS[2]:,}"):
            look(yard.worker, sink, datetime(2020, 1, 1, tzinfo=UTC))
    assert yard.wrong() == {}


def test_a_stream_without_a_row_of_the_segment(yard: Yard) -> None:
    """The cursor passes over transactions that left nothing in the stream, too."""
    yard.admin.execute("SELECT refold.ensure_segments()")
    sink = deploy_sink(yard.worker, "crm", 'grain = "events"\n' + to_webhook("clicks", "http://127.0.0.1:9/hook"))
    table = yard.build("clicks").table_name
    tamper(yard.admin, f"DELETE FROM refold_builds.{table} WHERE position < {ENDS[0]}")
    seen = look(yard.worker, sink, ENDS[0])
    assert (seen.rows, seen.nothing, seen.segments) == (0, False, ("refold.events_000000000000001",))
    skip(yard.worker, sink, seen, "the test")
    assert obstacles_of(yard) == []


def obstacles_of(yard: Yard) -> list[str]:
    first = archives.find(yard.worker, "a.state = 'verified'")[0]
    found = obstacles(yard.worker, first.lower_position, first.upper_position, first.segment)
    return [one.reason for one in found if "sink" in one.reason]


def obstacle(yard: Yard) -> Obstacle:
    done = yard.purge()
    assert done.stopped_at is not None
    (found,) = [one for one in done.stopped_at.obstacles if "sink" in one.reason]
    return found


def test_no_cursor_stays_behind_when_nothing_more_comes(yard: Yard) -> None:
    with psycopg.connect(yard.url) as other:
        # While the last events are applied and counted, it may still write.
        other.execute("SELECT pg_current_xact_id()")
        yard.append(40)
        yard.skip_to(ENDS[3])
        yard.drain()
        yard.count()
        other.rollback()
    yard.seal()
    yard.archive()
    (now,) = one_row(yard.admin, "SELECT clock_timestamp()")
    done = purge(yard.worker, yard.compiler, limit=now)
    assert (len(done.segments), reasons(done)) == (4, [])
    yard.drain()
    assert yard.wrong() == {}
    yard.look()
