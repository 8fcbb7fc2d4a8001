"""kill -9 in the middle: the law holds, and the next run goes on where this one was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import date, timedelta

import pytest

from refold.postgres.failpoints import POINTS
from refold.service.duties import retain
from tests.engine.retain.conftest import FIRST, Retained

pytestmark = pytest.mark.live("retained")

BORDER = FIRST + timedelta(days=40)
STEPS = [point for point in POINTS if point.startswith("retain_")]


@pytest.mark.parametrize("point", STEPS)
def test_killed_anywhere(retained: Retained, point: str) -> None:
    retained.late(FIRST, BORDER)
    command = [sys.executable, "-m", "refold", "retain", "by_day", "--from", str(BORDER), "--yes"]
    environment = {**os.environ, "REFOLD_DATABASE_URL": retained.url, "REFOLD_CRASH_AT": point}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    retained.look()
    assert retained.days("by_day")[0] < BORDER or point == "retain_committed"
    # A worker does the rest.
    retain.run(retained.worker, retained.compiler)
    assert retained.build("by_day").retained_from == (BORDER - date(1970, 1, 1)).days
    assert retained.days("by_day")[0] >= BORDER
    retained.drain()
    retained.look()
    assert retained.wrong() == {}


def test_the_duty_moves_the_border_with_the_days(retained: Retained) -> None:
    retained.admin.execute("INSERT INTO refold.retentions (projection, keep) VALUES ('by_day', '100 days')")
    retained.admin.execute("INSERT INTO refold.retentions (projection, keep) VALUES ('gone', '1 day')")
    retain.run(retained.worker, retained.compiler)
    (today,) = retained.admin.execute("SELECT (now() AT TIME ZONE 'UTC')::date").fetchone() or (None,)
    assert today is not None
    border = retained.build("by_day").retained_from
    # The day may have changed since.
    assert border is not None and 0 <= (today - date(1970, 1, 1)).days - 100 - border <= 1
    retained.look()
    assert retained.wrong() == {}
