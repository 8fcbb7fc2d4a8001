"""Waiting for what another process or session does: until it is so, not for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], deadline_s: float = 30.0, every_s: float = 0.01) -> T:
    """Calls a condition until what it returns is true, and returns that.

    Args:
        condition: looks; it does not wait by itself.
        deadline_s: after this many seconds the test fails.
        every_s: seconds between two looks.
    """
    end = time.monotonic() + deadline_s
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{condition} is not true after {deadline_s} s; it returned {found!r}")
        time.sleep(every_s)
    return found
