"""Waiting for other processes."""

from __future__ import annotations

import time
from collections.abc import Callable

from refold.errors import RefoldError

DEADLINE_S = 600.0
"""Seconds after which the demo stops waiting for a condition, even on a busy machine."""


class TooLong(RefoldError):
    """A condition did not hold in time."""


def wait_for(condition: Callable[[], bool], what: str, *, every_s: float = 0.01) -> float:
    """Wait until a condition holds, and return the seconds that it took.

    Args:
        condition: returns whether the condition holds now.
        what: the condition, in words.
        every_s: seconds between two checks.

    Raises:
        TooLong: the condition did not hold within DEADLINE_S.
    """
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > DEADLINE_S:
            raise TooLong(f"the demo waited {DEADLINE_S:.0f} s for this, which did not happen: {what}")
        time.sleep(every_s)
    return time.monotonic() - started
