"""Searches for the events that make a page or a load fail, in the order of the stream.

A culprit is an event that fails together with all earlier ones, while the earlier ones alone pass. Events may fail only
in combination: their sum is 0 and a divisor, or exceeds what a numeric can hold. Then the last of them is the culprit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sized
from dataclasses import dataclass, field

from refold.model.stream.cursor import Key

PORTION = 200
"""Most culprits that a transaction quarantines; the next transaction continues after them."""
SECONDS = 2.0
"""Seconds after which a transaction that has found culprits ends: its locks block healing and the switch."""


@dataclass(frozen=True, slots=True)
class Culprit:
    """An event that fails together with all earlier ones.

    Args:
        event_id: id of the row in the stream.
        key: coordinates of that row.
        error: the exception it raised.
    """

    event_id: str
    key: Key
    error: Exception


@dataclass(slots=True)
class Portion:
    """The bounds of a search in one transaction, which must not hold its locks for long.

    Args:
        found: the culprits found so far.
        most: number of culprits after which to stop.
        seconds: time after which to stop if there is a culprit.
    """

    found: Sized
    most: int = PORTION
    seconds: float = SECONDS
    _began: float = field(default_factory=time.monotonic)

    def enough(self) -> bool:
        """Return whether to commit the culprits, and continue in another transaction."""
        return len(self.found) >= self.most or (len(self.found) > 0 and time.monotonic() > self._began + self.seconds)


def sift(
    rows: int,
    *,
    attempt: Callable[[int], Exception | None],
    blame: Callable[[Exception], None],
    enough: Callable[[], bool] = lambda: False,
) -> int:
    """Apply rows in order, find those that fail, and return the number of rows done.

    A culprit costs about twice the binary logarithm of its distance from the culprit before it; a hundred in a row cost
    a hundred attempts.

    Args:
        rows: number of rows; all of them together have failed.
        attempt: applies a number of the next rows; returns None, or the error if no row was applied.
        blame: called with the error of the next row, which fails by itself and then counts as done.
        enough: returns whether to stop; called after each culprit.
    """
    done, fails, step = 0, rows, 0
    while done < rows and not enough():
        # The rows up to `fails` are known to fail: halve the step. Beyond them, double it.
        step = max(1, (fails - done) // 2) if fails > done else min(2 * step or 1, rows - done)
        error = attempt(step)
        if error is None:
            done += step
        elif step > 1:
            fails = done + step
        else:
            blame(error)
            done += 1
            fails, step = done, 0
    return done


def first_failing(rows: int, failure: Callable[[int], Exception | None], *, passes: int = 0) -> tuple[int, Exception]:
    """Return the first row that fails together with all earlier ones, if each attempt starts at the first row.

    Args:
        rows: number of rows; `failure(rows)` must return an error.
        failure: evaluates a number of rows from the first; returns the error, or None.
        passes: number of rows from the first that are known to pass.

    Returns:
        The number of the row, from 1, and its error.
    """
    error = failure(rows)
    assert error is not None
    fails = rows
    while fails - passes > 1:
        middle = (passes + fails) // 2
        found = failure(middle)
        if found is None:
            passes = middle
        else:
            fails, error = middle, found
    return fails, error
