"""kill -9 at every step: the law holds, nothing is half erased, and the same command finishes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold.engine.erasure.run import change_log, finish
from refold.postgres.failpoints import POINTS
from refold.store import erasures
from refold.store.builds.compiled import Compiler
from tests.engine.archive.conftest import Shop as ArchiveShop
from tests.engine.archive.conftest import shop as archive_shop  # noqa: F401
from tests.engine.erasure.conftest import ALICE, MAIL, Shop
from tests.engine.erasure.test_archive import ALICE as OTHER
from tests.engine.erasure.test_archive import files, with_alice
from tests.engine.erasure.test_erasure import SIGNS, whole
from tests.support.live import SHOP
from tests.support.waiting import wait_until

OF_FILES = ["erasure_file", "erasure_removed", "erasure_archived", "erasure_recorded"]
OF_PURGED = ["erasure_purged_sent", "erasure_purged", "erasure_rebased"]
"""Passed only beside purged segments: see test_purged."""
OTHERS = [point for point in POINTS if point.startswith("erasure_") and point not in (*OF_FILES, *OF_PURGED)]


def erasing(url: str, user_id: str, *more: str, at: str = "") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "refold", "erase", "--user-file", "-", "--yes", "--reason", "asked", *more]
    environment = {**os.environ, "REFOLD_DATABASE_URL": url, "REFOLD_CRASH_AT": at}
    return subprocess.run(command, input=user_id.encode(), env=environment, capture_output=True, timeout=120)


def session_ends(admin: psycopg.Connection[Any]) -> None:
    """Wait until the server has noticed that the holder of the archive's lease was killed."""
    held = "SELECT FROM refold.archive_store JOIN pg_stat_activity AS a ON a.pid::text = split_part(holder, ':', 2)"
    wait_until(lambda: admin.execute(held).rowcount == 0)


@pytest.mark.slow
@pytest.mark.live("shop")
@pytest.mark.parametrize("point", OTHERS)
def test_killed_anywhere_it_is_finished(shop: Shop, point: str) -> None:
    more = ("--also", f"email={MAIL}", "--projections", str(SHOP))
    killed = erasing(shop.url, ALICE, *more, at=point)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    [erasure] = erasures.find(shop.worker)
    if erasure.step == "log":
        # All or nothing: the witness, with all other events, was to be changed in the same transaction.
        assert shop.holding(ALICE)
    whole(shop)
    done = erasing(shop.url, ALICE, *more)
    assert done.returncode == 0, done.stderr.decode()
    assert shop.holding(*SIGNS) == []
    whole(shop)
    assert [one.step for one in erasures.find(shop.worker)] == ["done"]
    for told in (killed, done):
        assert ALICE.encode() not in told.stdout + told.stderr


@pytest.mark.live("shop")
def test_a_worker_goes_on_without_being_told_the_name(shop: Shop) -> None:
    killed = erasing(shop.url, ALICE, "--also", f"email={MAIL}", "--projections", str(SHOP), at="erasure_begun")
    assert killed.returncode == -signal.SIGKILL
    [erasure] = erasures.unfinished(shop.worker)
    compiler = Compiler(SHOP)
    erasure = change_log(shop.worker, compiler, erasure)
    assert shop.holding(*SIGNS) == []
    assert finish(shop.worker, erasure).step == "done"
    whole(shop)


@pytest.mark.slow
@pytest.mark.parametrize("point", OF_FILES)
def test_killed_while_files_are_written_again(archive_shop: ArchiveShop, point: str) -> None:  # noqa: F811
    with_alice(archive_shop)
    killed = erasing(archive_shop.url, OTHER, at=point)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    session_ends(archive_shop.admin)
    # A worker does the rest.
    [erasure] = erasures.unfinished(archive_shop.worker)
    assert finish(archive_shop.worker, erasure).step == "done"
    assert not any(OTHER in users for users in files(archive_shop).values())
    assert len(list(Path(archive_shop.location, "log").rglob("*.parquet"))) == 3
