"""Waiting for what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable

from refold.errors import RefoldError

DEADLINE_S = 600.0
"""Seconds after which the demo takes it that something will never happen, even on a machine with much else to do."""


class TooLong(RefoldError):
    """Something that must happen did not."""


def wait_for(condition: Callable[[], bool], what: str, *, every_s: float = 0.01) -> float:
    """Looks until a condition holds; answers how many seconds that took.

    Args:
        condition: looks once.
        what: what is waited for, in words.
        every_s: seconds between two looks.

    Raises:
        TooLong: it did not hold within DEADLINE_S.
    """
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > DEADLINE_S:
            raise TooLong(f"{what}: not within {DEADLINE_S:.0f} s")
        time.sleep(every_s)
    return time.monotonic() - started
