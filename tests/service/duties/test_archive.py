"""The duty that archives: in steps, with pauses while the store fails, and beside everything else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from refold.engine.archive import write
from refold.engine.archive.failures import StoreFailed
from refold.engine.archive.object_store import LocalStore
from refold.service.duties import archive
from refold.store.builds.compiled import Compiler
from tests.engine.archive.conftest import Shop, shop  # noqa: F401
from tests.support.waiting import wait_until

COMPILER = Compiler(None)


def due_now(shop: Shop) -> None:  # noqa: F811
    shop.admin.execute("UPDATE refold.settings SET archive_after = 0")


def test_it_archives_what_is_due(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    archive.run(shop.worker, COMPILER)
    shop.claim()
    archive.run(shop.worker, COMPILER)
    assert shop.manifest() == []
    due_now(shop)
    # A step ends, and the next one goes on.
    monkeypatch.setattr(archive, "STEP_S", 0.0)
    archive.run(shop.worker, COMPILER)
    assert shop.manifest() == []
    monkeypatch.undo()
    archive.run(shop.worker, COMPILER)
    assert shop.states() == [(1, "verified")] * 3


def test_a_store_that_fails_is_left_alone_for_longer_and_longer(
    shop: Shop, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    shop.claim()
    due_now(shop)
    calls = []

    class Failing(LocalStore):
        def read(self, name: str) -> bytes | None:
            calls.append(name)
            raise StoreFailed("503 slow down")

    monkeypatch.setattr(write, "open_store", lambda location: Failing(Path(location)))
    pause = "SELECT failures, round(extract(epoch FROM retry_at - clock_timestamp()) / 30) FROM refold.archive_store"
    for failures, times in [(1, 1), (2, 2), (3, 4)]:
        archive.run(shop.worker, COMPILER)
        archive.run(shop.worker, COMPILER)
        assert shop.admin.execute(pause).fetchone() == (failures, times)
        assert len(calls) == failures
        shop.admin.execute("UPDATE refold.archive_store SET retry_at = now()")
    assert shop.incidents() == []
    shop.admin.execute("UPDATE refold.archive_store SET failing_since = now() - interval '2 minutes'")
    archive.run(shop.worker, COMPILER)
    assert shop.incidents() == [("archive", shop.location)]
    monkeypatch.undo()
    shop.admin.execute("UPDATE refold.archive_store SET retry_at = now()")
    archive.run(shop.worker, COMPILER)
    assert shop.states() == [(1, "verified")] * 3
    assert shop.incidents() == []


def test_a_store_of_another_database_is_an_incident_at_once(shop: Shop) -> None:  # noqa: F811
    shop.claim()
    shop.admin.execute("UPDATE refold.archive_store SET owner = 'another'")
    archive.run(shop.worker, COMPILER)
    assert shop.incidents() == [("archive", shop.location)]


def test_files_are_looked_at_again(shop: Shop) -> None:  # noqa: F811
    shop.claim()
    due_now(shop)
    archive.run(shop.worker, COMPILER)
    shop.admin.execute("UPDATE refold.archives SET checked_at = now() - interval '8 days'")
    lost = shop.manifest()[0]
    (Path(shop.location) / lost.location).unlink()
    archive.run(shop.worker, COMPILER)
    assert shop.incidents() == [("archive_damage", lost.segment)]
    archive.run(shop.worker, COMPILER)
    assert shop.incidents() == []
    assert shop.admin.execute(
        "SELECT count(*) FROM refold.archives WHERE checked_at < now() - interval '1 day' AND state = 'verified'"
    ).fetchone() == (1,)


def test_a_worker_archives(shop: Shop, tmp_path: Path) -> None:  # noqa: F811
    shop.claim()
    due_now(shop)
    environment = {**os.environ, "REFOLD_DATABASE_URL": shop.url}
    command = [sys.executable, "-m", "refold", "worker"]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: shop.states() == [(1, "verified")] * 3, 30)
        finally:
            process.terminate()
