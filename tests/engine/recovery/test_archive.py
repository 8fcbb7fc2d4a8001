"""After a restore the archive is still right, though the log has new transaction ids; the store is for a person."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from refold.embedded import EmbeddedServer
from refold.engine.archive.failures import NotOwner
from refold.engine.archive.restore import restore as bring_back
from refold.engine.archive.verify import verify
from refold.engine.recovery import recover
from refold.engine.scrub.scrub import scrub
from refold.postgres.connect import connect
from refold.store.schema.migrate import migrate
from tests.engine.archive.conftest import SLICE, Shop, segments_of, shop_of
from tests.support.clusters import dump, make_database, restore
from tests.support.tampering import tamper


def archived(old: EmbeddedServer, name: str, location: Path) -> Shop:
    url = make_database(old, name)
    migrate(url)
    admin = psycopg.connect(url, autocommit=True)
    segments_of(admin, *(number * SLICE for number in range(1, 6)))
    made = shop_of(url, admin, connect(url, "refold_worker", autocommit=True), str(location))
    made.fill(3)
    made.seal(3)
    made.claim()
    assert len(made.run().verified) == 3
    return made


@pytest.mark.parametrize("lost", [False, True], ids=["whole", "with a loss"])
def test_a_dump_in_another_cluster(old: EmbeddedServer, fresh: Callable[[], str], tmp_path: Path, lost: bool) -> None:
    original = archived(old, f"archived_{lost}", tmp_path / "archive")
    url = fresh()
    restore(dump(original.url), url)
    original.worker.close()
    original.admin.close()
    with psycopg.connect(url, autocommit=True) as admin, connect(url, "refold_worker", autocommit=True) as worker:
        if lost:
            tamper(admin, "DELETE FROM refold.events WHERE event_id = 's1-3'")
        report = recover(worker, None)
        assert report.archive and report.as_dict()["archive_to_claim"]
        shop = shop_of(url, admin, worker, original.location)
        assert [(one.state, one.rewritten, one.proved_at) for one in shop.manifest()] == [("written", True, None)] * 3
        shop.seal(3)
        with pytest.raises(NotOwner):
            shop.run()
        files = {path: path.read_bytes() for path in Path(shop.location, "log").rglob("*.parquet")}
        shop.claim()
        done = shop.run()
        # The files agree with the log under its new ids: none is written again, but where the restore lost events.
        states = {one.location: one.state for one in shop.manifest()}
        assert len(done.written) == lost
        assert sorted(states.values()) == (["replaced"] if lost else []) + ["verified"] * 3
        assert {path: path.read_bytes() for path in files} == files
        assert verify(worker, by="the test", deep=True).wrong == []
        # And they bring back what is damaged then, under these ids.
        before = admin.execute("SELECT e::text FROM refold.events AS e ORDER BY position").fetchall()
        tamper(admin, "UPDATE refold.events SET action = 'forged' WHERE event_id IN ('s0-1', 's2-1')")
        assert scrub(worker).damage != []
        for lower in (1, 2 * SLICE):
            assert bring_back(worker, f"refold.events_{lower:015}", by="the test").slices != []
        assert admin.execute("SELECT e::text FROM refold.events AS e ORDER BY position").fetchall() == before
        assert scrub(worker).damage == []
