"""A plugin for pytest: a run that `--session-timeout` has ended without a failure exits with a status of its own."""

from __future__ import annotations

import time

import pytest

STOPPED = 124
"""Exit status when the time was up and no test had failed; `timeout` of the coreutils has the same."""

_began = time.monotonic()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the end of the time from a failure and from Ctrl-C."""
    limit = session.config.getoption("session_timeout")
    is_up = limit is not None and time.monotonic() - _began >= float(limit)
    if is_up and session.exitstatus == pytest.ExitCode.INTERRUPTED and not session.testsfailed:
        session.exitstatus = STOPPED
