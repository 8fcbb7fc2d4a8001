"""Finding the events that make a page fail: halves of it, and halves of those, until one event fails alone.

Each culprit costs about twice the binary logarithm of the page's rows in further statements.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import psycopg

from refold.projections.transform import FunctionFailed

Part = TypeVar("Part")

OF_EVENTS = ("21", "22", "23", "38", "39", "54", "P0")
"""Classes of SQLSTATE that an event's content can cause: cardinality, data, integrity, what functions raise, sizes."""


def of_an_event(error: BaseException) -> bool:
    """Whether one of the events may have caused an error. Pure.

    Else it is the database's (it is away, full, or wants a retry) or the projection's (a table or right is missing).
    """
    if isinstance(error, psycopg.Error):
        if error.sqlstate is not None:
            return error.sqlstate[:2] in OF_EVENTS
        # Refused before it was sent.
        return isinstance(error, psycopg.DataError)
    return isinstance(error, FunctionFailed | UnicodeEncodeError)


def bisect(
    whole: Part,
    *,
    attempt: Callable[[Part], Exception | None],
    halves: Callable[[Part], tuple[Part, Part] | None],
    blame: Callable[[Part, Exception], None],
) -> None:
    """Finds what fails alone.

    Args:
        whole: all of it.
        attempt: tries a part; the error if it fails.
        halves: cuts a part in two, in order; None when it is a single event.
        blame: told of each single event that fails.
    """
    error = attempt(whole)
    if error is None:
        return
    parts = halves(whole)
    if parts is None:
        blame(whole, error)
        return
    for part in parts:
        bisect(part, attempt=attempt, halves=halves, blame=blame)
