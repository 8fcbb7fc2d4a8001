"""kill -9 at every step of folding and purging: the same command goes on, and nothing counts twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from refold.engine.purge.purge import drop
from refold.postgres.failpoints import POINTS
from refold.store.totals import count_events
from tests.engine.purge.conftest import ENDS, Yard

pytestmark = pytest.mark.live("archived")

STEPS = [point for point in POINTS if point.startswith(("fold_", "purge_"))]
TIMES = {"fold_begun": 2, "fold_undone": 3, "fold_rows": 5, "fold_stepped": 9, "purge_folded": 2, "purge_committed": 1}


def killed(yard: Yard, at: str) -> None:
    count_events(yard.worker)
    environment = {**os.environ, "REFOLD_DATABASE_URL": yard.url, "REFOLD_CRASH_AT": f"{at}:{TIMES.get(at, 2)}"}
    command = [sys.executable, "-m", "refold", "archive", "purge", "--yes", "--before", "2100-01-01"]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.mark.slow
@pytest.mark.parametrize("point", STEPS)
def test_killed_anywhere(yard: Yard, point: str) -> None:
    killed(yard, point)
    yard.look()
    yard.append(20)
    yard.drain()
    yard.look()
    yard.purge()
    assert yard.admin.execute("SELECT refold.log_floor()").fetchone() == (ENDS[2],)
    # No table is left beside the log.
    assert drop(yard.worker) == []
    left = "SELECT count(*) FROM pg_class WHERE relname LIKE 'events\\_0%' AND relkind = 'r' AND NOT relispartition"
    assert yard.admin.execute(left).fetchone() == (0,)
    yard.look()
    assert yard.wrong() == {}
