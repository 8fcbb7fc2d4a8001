"""Functions that yield the interpreter lock to the other threads of this process.

A thread that computes in Python gives up the lock only after five milliseconds (`sys.getswitchinterval`). A thread that
talks to the server needs the lock after every answer. Beside an audit of a transform, a page of twenty statements
would therefore take a tenth of a second longer.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

WORK_S = 0.002
"""Seconds of work from one rest to the next."""
REST_S = 0.0005


def gentle(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that does the same, but first sleeps for `REST_S` if `WORK_S` have passed since the last rest.

    Args:
        function: a function of one event.
    """
    due = 0.0

    @functools.wraps(function)
    def rested(event: Any) -> Any:
        nonlocal due
        if time.monotonic() >= due:
            time.sleep(REST_S)
            due = time.monotonic() + WORK_S
        return function(event)

    return rested
