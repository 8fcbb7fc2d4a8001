"""Finding the events that make a page or a load fail: in the order of the stream, each next to all those before it.

What is looked for is the first event without which all before it can be applied. So those are found too that fail only
together (a sum that becomes the divisor 0, two halves of what no numeric can hold): of them the last one goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sized
from dataclasses import dataclass, field

from refold.model.stream.cursor import Key

PORTION = 200
"""Culprits at most that one transaction sets aside; the next goes on behind them."""
SECONDS = 2.0
"""Seconds after which one that has found culprits ends: its locks are in the way of heals and of the switch."""


@dataclass(frozen=True, slots=True)
class Culprit:
    """An event that fails next to all before it.

    Args:
        event_id: of the row in the stream.
        key: its coordinates there.
        error: what it makes.
    """

    event_id: str
    key: Key
    error: Exception


@dataclass(slots=True)
class Portion:
    """How much one transaction looks for: a good many culprits, but it must not hold its locks for long.

    Args:
        found: where the culprits are collected.
        most: how many of them are enough.
        seconds: for how long to look, once there is one.
    """

    found: Sized
    most: int = PORTION
    seconds: float = SECONDS
    _began: float = field(default_factory=time.monotonic)

    def enough(self) -> bool:
        """Whether to commit what there is, and go on in another transaction."""
        return len(self.found) >= self.most or (len(self.found) > 0 and time.monotonic() > self._began + self.seconds)


def sift(
    rows: int,
    *,
    attempt: Callable[[int], Exception | None],
    blame: Callable[[Exception], None],
    enough: Callable[[], bool] = lambda: False,
) -> int:
    """Applies rows of which some fail, in their order, and finds those.

    A culprit costs about twice the binary logarithm of its distance from the one before it; a hundred in a row cost a
    hundred attempts.

    Args:
        rows: how many there are; all of them at once have failed.
        attempt: applies so many of the next rows, which are done then; the error if that fails, and none is done.
        blame: told that the next row fails, with its error; it is done then.
        enough: asked after each culprit whether to stop.

    Returns:
        How many rows are done.
    """
    done, fails, step = 0, rows, 0
    while done < rows and not enough():
        # Up to `fails` it is known to fail, so the culprit is found by halves; beyond, by steps of twice the length.
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
    """Finds the first row without which all before it can be evaluated, where that has to be done from nothing.

    Args:
        rows: how many there are; all of them together fail, at least `failure(rows)` has to say so.
        failure: evaluates so many of them, from the first; the error if that fails.
        passes: so many are known not to fail.

    Returns:
        Its number, from 1, and the error.
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
