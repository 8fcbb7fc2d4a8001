"""Functions that let the other threads of this process have their turn.

A thread that computes in Python gives way only after five milliseconds (`sys.getswitchinterval`), and one that talks to
the server asks for its turn with every answer: beside an audit of a transform a page of twenty statements would take a
tenth of a second longer.
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
    """The same function, which rests for a moment before it is run, if the last time is long ago."""
    due = 0.0

    @functools.wraps(function)
    def rested(event: Any) -> Any:
        nonlocal due
        if time.monotonic() >= due:
            time.sleep(REST_S)
            due = time.monotonic() + WORK_S
        return function(event)

    return rested
