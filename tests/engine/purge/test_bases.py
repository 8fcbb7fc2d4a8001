"""A build with a base: audits and heals are exact when its events have left the log."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from refold.engine.deployment.deploy import deploy, rebuild
from refold.engine.deployment.drop import drop
from refold.engine.publish.switch import drop_retired
from refold.engine.reconcile.release import release
from refold.errors import BuildError, DefinitionError
from refold.model.projection.definition import load_directory
from refold.postgres.rows import one_row
from refold.store.archives import Archive
from refold.store.builds.build import find, live
from refold.store.builds.dead_letters import letters
from tests.engine.purge.conftest import ENDS, PROJECT, Yard
from tests.support.law import random_events

pytestmark = pytest.mark.live("archived")


def let_go(yard: Yard, archive: Archive) -> None:
    """What a purge does, by hand."""
    with yard.admin.transaction():
        yard.admin.execute("UPDATE refold.builds SET floor = %s WHERE upstream_id IS NULL", (archive.upper_position,))
        yard.admin.execute(f"ALTER TABLE refold.events DETACH PARTITION {archive.segment}".encode())
        yard.admin.execute(
            "UPDATE refold.archives SET state = 'purged', purged_at = now() WHERE location = %s", (archive.location,)
        )


def test_folding_changes_nothing_until_the_floor_moves(yard: Yard) -> None:
    first, second, *_ = yard.archive()
    yard.look()
    for archive in (first, second):
        yard.fold(archive)
        yard.look()
        let_go(yard, archive)
        yard.look()
        yard.append(30)
        yard.drain()
        yard.look()
    assert yard.wrong() == {}
    assert yard.reconcile().clean


def test_rows_of_a_base_are_merged_when_they_count(yard: Yard) -> None:
    yard.purge()
    of = "SELECT count(*) FROM refold_builds.{} WHERE upto__ > 1"
    for build in yard.of_log():
        if build.upkeep in ("merge", "members"):
            assert one_row(yard.admin, of.format(f"{build.table_name}__base").encode()) == (0,)
    yard.look()


def test_what_was_damaged_is_healed_from_base_and_log(yard: Yard) -> None:
    yard.purge()
    daily, by_user, clicks = (yard.build(name).table_name for name in ("daily", "by_user", "clicks"))
    with yard.admin.transaction():
        yard.admin.execute(f"UPDATE refold_builds.{daily} SET events = events + 1, users = users + 2".encode())
        yard.admin.execute(f"DELETE FROM refold_builds.{daily}__m1 WHERE member__ = 'u3'".encode())
        yard.admin.execute(f"DELETE FROM refold_builds.{by_user} WHERE user_id IS NOT NULL".encode())
        yard.admin.execute(f"DELETE FROM refold_builds.{clicks} WHERE position >= %s".encode(), (ENDS[2],))
    assert yard.wrong().keys() >= {"daily", "by_user", "clicks"}
    assert yard.reconcile(deep=False).drift
    assert yard.wrong() == {}
    yard.look()
    assert yard.incidents() == []


@pytest.mark.parametrize("deep", [False, True])
def test_a_damaged_base_heals_nothing(yard: Yard, deep: bool) -> None:
    """The table is the last correct copy: it is not overwritten."""
    yard.purge()
    base = f"refold_builds.{yard.build('daily').table_name}__base"
    before = yard.admin.execute(f"SELECT b::text FROM {base} AS b ORDER BY 1".encode()).fetchall()
    yard.admin.execute(f"CREATE TABLE kept AS SELECT * FROM {base}".encode())
    yard.admin.execute(f"UPDATE {base} SET events = events + 1".encode())
    found = yard.reconcile(deep=deep)
    ((name, because),) = found.skipped
    assert name == "daily"
    assert "purged from the log" in because
    assert yard.wrong() == {}
    assert yard.incidents() == [("drift", "daily")]
    # Another fault of the same slices waits, too.
    assert yard.reconcile(deep=deep).skipped == found.skipped
    yard.admin.execute(f"DELETE FROM {base}".encode())
    yard.admin.execute(f"INSERT INTO {base} SELECT * FROM kept".encode())
    assert yard.admin.execute(f"SELECT b::text FROM {base} AS b ORDER BY 1".encode()).fetchall() == before
    assert yard.reconcile().clean
    assert yard.incidents() == []


@pytest.mark.parametrize("name", ["clicks", "tagged"])
def test_damaged_rows_of_purged_events_are_not_explained_away(yard: Yard, name: str) -> None:
    yard.purge()
    table = f"refold_builds.{yard.build(name).table_name}"
    yard.admin.execute(f"CREATE TABLE lost AS SELECT * FROM {table} WHERE position < 100 LIMIT 2".encode())
    yard.admin.execute(f"DELETE FROM {table} AS t USING lost WHERE lost.event_id = t.event_id".encode())
    for deep in (False, True, False):
        (skipped,) = [because for one, because in yard.reconcile(deep=deep).skipped if one == name]
        assert "purged from the log" in skipped
    assert ("drift", name) in yard.incidents()
    yard.admin.execute(f"INSERT INTO {table} SELECT * FROM lost".encode())
    assert yard.reconcile().skipped == []
    assert yard.incidents() == []
    assert yard.wrong() == {}


def test_a_rebuild_starts_from_the_base(yard: Yard) -> None:
    yard.purge()
    names = ["daily", "by_user", "seen", "everything", "clicks", "tagged"]
    rebuild(yard.worker, PROJECT, names, lambda progress: None, cascade=True)
    yard.look()
    yard.append(30)
    yard.drain()
    yard.look()
    assert yard.wrong() == {}
    # And the new base goes on.
    yard.skip_to(ENDS[3])
    yard.append(10)
    yard.drain()
    yard.seal()
    yard.archive()
    # A rollback to the former builds would need it.
    assert yard.purge().segments == []
    retired = find(yard.worker, "b.state = 'retired' AND b.upstream_id IS NULL")
    assert len(retired) == len(names)
    for one in retired:
        assert drop_retired(yard.worker, one.build_id, one.table_name)
    assert len(yard.purge().segments) == 1
    yard.look()
    assert yard.wrong() == {}
    # No base is left of a build that was dropped.
    assert one_row(yard.admin, "SELECT count(*) FROM refold.bases") == (len(names),)


PURGED_DAMAGE = {
    "daily": "UPDATE refold_builds.{}__base SET events = events + 1",
    "by_user": "DELETE FROM refold_builds.{}__base WHERE user_id = 'u1'",
    "seen": "INSERT INTO refold_builds.{0}__base SELECT 'nobody', action, upto__ FROM refold_builds.{0}__base LIMIT 1",
    "everything": "DELETE FROM refold_builds.{}__m1__base WHERE member__ = 'u3'",
    "clicks": "UPDATE refold_builds.{} SET n = 99 WHERE position < 100",
    "tagged": "DELETE FROM refold_builds.{} WHERE position < 100 AND tag LIKE 'buy%'",
}
READERS = {"clicks": ["paths"], "tagged": ["tag_weights"]}


@pytest.mark.parametrize("how", ["rebuilt", "dropped and deployed", "without the archive"])
@pytest.mark.parametrize("name", PURGED_DAMAGE)
def test_what_is_damaged_is_not_taken_over(yard: Yard, name: str, how: str) -> None:
    """With new checksums nobody would find the damage any more: the archive is read instead."""
    yard.purge()
    yard.admin.execute(PURGED_DAMAGE[name].format(yard.build(name).table_name).encode())
    if how == "dropped and deployed":
        drop(yard.worker, [name, *READERS.get(name, [])])
        deploy(yard.worker, PROJECT, load_directory(PROJECT), lambda progress: None)
    elif how == "rebuilt":
        rebuild(yard.worker, PROJECT, [name], lambda progress: None, cascade=True)
    else:
        before = yard.build(name)
        Path(yard.location).rename(f"{yard.location}-away")
        with pytest.raises(BuildError, match="were purged from the log, and cannot be read from the archive"):
            rebuild(yard.worker, PROJECT, [name], lambda progress: None, cascade=True)
        assert live(yard.worker, name) == before
        Path(f"{yard.location}-away").rename(yard.location)
        rebuild(yard.worker, PROJECT, [name], lambda progress: None, cascade=True)
    assert yard.build(name).state == "live"
    assert yard.wrong() == {}
    yard.look()
    assert yard.reconcile().clean


def test_a_projection_that_would_recompute_is_refused(yard: Yard, tmp_path: Path) -> None:
    yard.purge()
    folder = tmp_path / "project"
    shutil.copytree(PROJECT, folder)
    (folder / "seen.sql").write_text(
        "SELECT user_id, array_agg(action ORDER BY ts, event_id) AS path FROM events GROUP BY user_id"
    )
    with pytest.raises(DefinitionError, match="seen has to read the log from its begin"):
        deploy(yard.worker, folder, load_directory(folder), lambda progress: None)
    (folder / "seen.sql").write_text((PROJECT / "seen.sql").read_text())
    (folder / "days.sql").write_text("SELECT action, count(*) AS times FROM clicks GROUP BY action")
    assert deploy(yard.worker, folder, load_directory(folder), lambda progress: None)
    yard.look()


def test_a_dead_letter_is_tried_again_without_its_segment(yard: Yard) -> None:
    """It merges as any late event does, and is in the base from then on."""
    bad = random_events(1, seed=9, prefix="bad-")[0]
    bad = bad.model_copy(update={"action": "buy", "metadata": {"n": "none", "place": "x"}})
    yard.append([bad])
    yard.drain()
    yard.skip_to(ENDS[3])
    yard.append(3)
    yard.drain()
    yard.seal()
    yard.archive()
    assert len(yard.purge().segments) == 4
    waiting = letters(yard.worker, waiting=True)
    assert sorted(one.projection for one in waiting) == ["by_user", "clicks", "daily", "tagged"]
    assert {release(yard.worker, yard.compiler, one).answer for one in waiting} == {"failed"}
    yard.look()
    # A rebuild leaves it out, too, and knows it.
    rebuild(yard.worker, PROJECT, ["by_user"], lambda progress: None)
    yard.look()
    assert len(letters(yard.worker, waiting=True)) == 4
    # A corrected event, in the copy that refold made and in the one of this test.
    yard.admin.execute(
        "UPDATE refold.dead_letters SET event = jsonb_set(event, '{metadata,n}', '7.50') WHERE event_id = 'bad-0'"
    )
    yard.admin.execute("UPDATE everything SET metadata = jsonb_set(metadata, '{n}', '7.50') WHERE event_id = 'bad-0'")
    for one in letters(yard.worker, waiting=True):
        assert release(yard.worker, yard.compiler, one).answer == "released"
    yard.drain()
    yard.look()
    assert yard.wrong() == {}


def test_a_dead_letter_that_is_tried_while_its_segment_is_folded(yard: Yard) -> None:
    yard.purge()
    yard.append([random_events(1, prefix="bad-")[0].model_copy(update={"action": "buy", "metadata": {"n": "none"}})])
    yard.drain()
    yard.skip_to(ENDS[3])
    yard.drain()
    yard.seal()
    (archive,) = yard.archive()
    yard.fold(archive)
    stale = "SELECT count(*) FROM refold.bases WHERE stale"
    assert one_row(yard.admin, stale) == (0,)
    tried = [one for one in letters(yard.worker, waiting=True) if one.projection in ("daily", "by_user")]
    assert {release(yard.worker, yard.compiler, one).answer for one in tried} == {"failed"}
    assert one_row(yard.admin, stale) == (2,)
    assert len(yard.purge().segments) == 1
    yard.look()
    yard.admin.execute("DELETE FROM everything WHERE event_id = 'bad-0'")
    assert yard.wrong().keys() <= {"seen", "everything", "tagged", "tag_weights"}
