"""A person is erased while a segment of the log is lost: what comes back from the archive would bring the person."""

from __future__ import annotations

import pytest

from refold.engine.archive.restore import restore
from refold.engine.scrub.scrub import scrub
from refold.store import erasures
from refold.store.log.integrity import LogDamaged
from tests.engine.archive.conftest import SLICE
from tests.engine.archive.conftest import Shop as ArchiveShop
from tests.engine.archive.conftest import shop as archive_shop  # noqa: F401
from tests.engine.erasure.test_archive import ALICE, erased, files, with_alice
from tests.support.tampering import tamper

FIRST = f"refold.events_{1:015}"
LOSSES = {
    "table": f"DROP TABLE {FIRST}",
    "events": f"DELETE FROM refold.events WHERE position < {SLICE}",
    "name": "UPDATE refold.events SET user_id = 'somebody else' WHERE event_id = 's0-1'",
}


@pytest.mark.parametrize("loss", LOSSES)
def test_nobody_is_erased_from_a_log_that_has_lost_something(archive_shop: ArchiveShop, loss: str) -> None:  # noqa: F811
    with_alice(archive_shop)
    before = files(archive_shop)
    tamper(archive_shop.admin, LOSSES[loss])
    with pytest.raises(LogDamaged, match=f"the log is damaged.*{FIRST}"):
        erased(archive_shop)
    assert erasures.unfinished(archive_shop.worker) == []
    assert files(archive_shop) == before
    assert archive_shop.incidents() == [("log_damage", FIRST)]
    restore(archive_shop.worker, FIRST, by="the test")
    assert archive_shop.incidents() == []
    erased(archive_shop)
    assert not any(ALICE in users for users in files(archive_shop).values())
    assert archive_shop.admin.execute("SELECT FROM refold.events WHERE user_id = %s", (ALICE,)).rowcount == 0
    assert scrub(archive_shop.worker).damage == []
