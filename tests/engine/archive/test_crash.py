"""kill -9 at every step leaves nothing that is believed, and nothing in the way of the next run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from refold.engine.archive.restore import restore
from refold.engine.archive.verify import verify
from refold.engine.scrub.scrub import scrub
from refold.postgres.failpoints import POINTS, Point
from tests.engine.archive.conftest import SLICE, Shop
from tests.engine.archive.test_restoring import LOG
from tests.support.tampering import tamper

RESTORING: tuple[Point, ...] = ("archive_created", "archive_exchanged", "archive_restored")
WRITING = [point for point in POINTS if point.startswith("archive_") and point not in RESTORING]


def killed(shop: Shop, at: str, *arguments: str) -> None:
    environment = {**os.environ, "REFOLD_DATABASE_URL": shop.url, "REFOLD_CRASH_AT": at}
    command = [sys.executable, "-m", "refold", "archive", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    # Its time is over.
    shop.admin.execute("UPDATE refold.archive_store SET leased_until = now() - interval '1 s' WHERE holder IS NOT NULL")


@pytest.mark.parametrize("point", WRITING)
def test_killed_while_it_writes(shop: Shop, point: str) -> None:
    shop.claim()
    # At the last file, so that no other one tidies up; each takes two turns.
    killed(shop, f"{point}:{6 if 'turn' in point else 3}", "run", "--now")
    assert all(one.proved_at is not None for one in shop.manifest() if one.state == "verified")
    shop.run()
    current = [one for one in shop.manifest() if one.state == "verified"]
    assert len(current) == len(shop.manifest()) == 3
    # What it left is used or removed.
    files = {str(path.relative_to(shop.location)) for path in Path(shop.location, "log").rglob("*") if path.is_file()}
    assert files == {one.location for one in current}
    found = verify(shop.worker, by="the test", deep=True)
    assert (found.files, found.wrong, found.strangers) == (3, [], {})


@pytest.mark.parametrize("point", RESTORING)
def test_killed_while_it_restores(shop: Shop, point: str) -> None:
    shop.claim()
    shop.run()
    before = shop.admin.execute(LOG).fetchall()
    segment = f"refold.events_{SLICE:015}"
    tamper(shop.admin, f"DROP TABLE {segment}")
    killed(shop, point, "restore", segment)
    # Nothing of it is there before all of it is.
    assert (scrub(shop.worker).damage == []) == (point == "archive_restored")
    assert restore(shop.worker, segment, by="the test").slices == ([] if point == "archive_restored" else [1])
    assert scrub(shop.worker).damage == []
    assert shop.admin.execute(LOG).fetchall() == before
