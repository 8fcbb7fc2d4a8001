"""A person is erased while a segment of the log is lost: what comes back from the archive must not bring the person."""

from __future__ import annotations

import pytest

from refold.engine.archive.restore import restore
from refold.engine.scrub.scrub import scrub
from refold.errors import BuildError
from tests.engine.archive.conftest import SLICE
from tests.engine.archive.conftest import Shop as ArchiveShop
from tests.engine.archive.conftest import shop as archive_shop  # noqa: F401
from tests.engine.erasure.test_archive import ALICE, erased, files, with_alice
from tests.support.tampering import tamper

FIRST = f"refold.events_{1:015}"


@pytest.mark.parametrize("loss", [f"DROP TABLE {FIRST}", f"DELETE FROM refold.events WHERE position < {SLICE}"], ids=["table", "events"])
def test_probe(archive_shop: ArchiveShop, loss: str) -> None:  # noqa: F811
    with_alice(archive_shop)
    tamper(archive_shop.admin, loss)
    try:
        erased(archive_shop)
        print("ERASED")
    except BuildError as error:
        print("REFUSED", error)
    try:
        restore(archive_shop.worker, FIRST, by="the test")
    except Exception as error:
        print("RESTORE", repr(error))
    print(archive_shop.admin.execute("SELECT event_id, user_id FROM refold.events WHERE user_id = %s", (ALICE,)).fetchall())
    print(files(archive_shop), scrub(archive_shop.worker).damage)
