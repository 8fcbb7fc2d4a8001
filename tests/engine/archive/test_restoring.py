"""A damaged or lost segment comes back from the archive, and only if it is then what was sealed."""

from __future__ import annotations

from pathlib import Path

import pytest

from refold.engine.archive.failures import Differs
from refold.engine.archive.restore import restore
from refold.engine.scrub.accept import accept
from refold.engine.scrub.scrub import scrub
from refold.errors import BuildError, InputError
from tests.engine.archive.conftest import SLICE, Shop
from tests.support.tampering import tamper

FIRST, SECOND = "refold.events_000000000000001", f"refold.events_{SLICE:015}"
LOG = "SELECT e::text FROM refold.events AS e ORDER BY position"
DAMAGE = {
    "changed": "UPDATE refold.events SET action = 'forged' WHERE event_id = 's1-2'",
    "lost": "DELETE FROM refold.events WHERE event_id IN ('s1-0', 's1-4')",
    "foreign": "INSERT INTO refold.events (txid, position, event_id, action, ts)"
    f" SELECT txid, {SLICE + 900}, 'forged', action, ts FROM refold.events WHERE event_id = 's1-0'",
    "moved": f"UPDATE refold.events SET position = {SLICE + 901} WHERE event_id = 's1-1'",
    "emptied": f"DELETE FROM refold.events WHERE position >= {SLICE} AND position < {2 * SLICE}",
    "gone": f"DROP TABLE {SECOND}",
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_damaged_comes_back(shop: Shop, what: str) -> None:
    shop.claim()
    shop.run()
    before = shop.admin.execute(LOG).fetchall()
    tamper(shop.admin, DAMAGE[what])
    assert scrub(shop.worker).damage != []
    looked = restore(shop.worker, SECOND, by="the test", dry_run=True)
    assert (looked.slices, looked.events, looked.created) == ([1], 0, what == "gone")
    done = restore(shop.worker, SECOND, by="the test")
    assert done.events == 5
    assert shop.admin.execute(LOG).fetchall() == before
    assert scrub(shop.worker).damage == []
    assert shop.incidents() == []
    # A segment that was made again has its guard, and a second time there is nothing to do.
    assert shop.admin.execute("SELECT refold.arm_guards()").fetchone() == (0,)
    assert restore(shop.worker, SECOND, by="the test").slices == []


def test_a_file_that_is_not_what_was_written_changes_nothing(shop: Shop) -> None:
    shop.claim()
    shop.run()
    tamper(shop.admin, DAMAGE["changed"])
    path = Path(shop.location) / shop.manifest()[1].location
    path.write_bytes((Path(shop.location) / shop.manifest()[2].location).read_bytes())
    with pytest.raises(Differs, match="not what was written"):
        restore(shop.worker, SECOND, by="the test")
    assert len(scrub(shop.worker).damage) == 2


def test_what_was_accepted_is_archived_again(shop: Shop) -> None:
    """A person has said that the log as it stands counts: the former file does not any more."""
    shop.claim()
    shop.run()
    tamper(shop.admin, DAMAGE["lost"])
    scrub(shop.worker)
    accept(shop.worker, SECOND, "no backup")
    assert [one.state for one in shop.manifest()] == ["verified", "replaced", "verified"]
    with pytest.raises(InputError, match="no proved file"):
        restore(shop.worker, SECOND, by="the test")
    assert shop.run().verified == [SECOND]
    assert [one.events for one in shop.manifest() if one.state == "verified"] == [9, 3, 5]


def test_an_unknown_segment_is_refused(shop: Shop) -> None:
    shop.claim()
    with pytest.raises(InputError, match="no proved file"):
        restore(shop.worker, FIRST, by="the test")


def test_what_is_put_back_must_be_what_was_sealed(shop: Shop) -> None:
    """The file is right, but something else is sealed by now, of which the manifest knows nothing."""
    shop.claim()
    shop.run()
    tamper(shop.admin, DAMAGE["changed"])
    shop.admin.execute("UPDATE refold.sealed_slices SET hash = hash + 1 WHERE slice = 1")
    before = shop.admin.execute(LOG).fetchall()
    with pytest.raises(BuildError, match="does not hold what was sealed in slices 1"):
        restore(shop.worker, SECOND, by="the test")
    assert shop.admin.execute(LOG).fetchall() == before
