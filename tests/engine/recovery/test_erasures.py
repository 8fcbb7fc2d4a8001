"""A restore from a backup that is older than an erasure: recovery does the erasure again, as the archive has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from refold.embedded import EmbeddedServer
from refold.engine.erasure.run import erase
from refold.engine.recovery import recover
from refold.engine.scrub.scrub import scrub
from refold.model.erasure import Person
from refold.postgres.connect import connect
from refold.store import erasures
from tests.engine.recovery.test_archive import archived
from tests.support.clusters import dump, restore


@pytest.mark.slow
def test_recover_erases_again(old: EmbeddedServer, fresh: Callable[[], str], tmp_path: Path) -> None:
    original = archived(old, "erased", tmp_path / "archive")
    (user_id,) = original.admin.execute("SELECT user_id FROM refold.events WHERE event_id = 's1-1'").fetchone() or ("",)
    before = dump(original.url)
    erase(original.worker, None, Person(user_id), mode="delete", keeps=[], reason="asked")
    original.worker.close()
    original.admin.close()
    url = fresh()
    restore(before, url)
    files = {path: path.read_bytes() for path in Path(original.location).rglob("*.parquet")}
    with psycopg.connect(url, autocommit=True) as admin, connect(url, "refold_worker", autocommit=True) as worker:
        report = recover(worker, None)
        assert (report.erased, report.not_erased) == (1, None)
        assert admin.execute("SELECT FROM refold.events WHERE user_id = %s", (user_id,)).rowcount == 0
        assert [one.step for one in erasures.find(worker)] == ["done"]
        assert scrub(worker).damage == []
        # The files are the original's.
        assert {path: path.read_bytes() for path in files} == files
