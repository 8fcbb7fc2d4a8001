"""Suggestions of names that a user may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the known name that is most similar to another; None if none is similar. Pure.

    Args:
        name: the name that the user wrote.
        known: all names that exist.
        cutoff: the least similarity, from 0 to 1 (`difflib.SequenceMatcher.ratio`).
    """
    return next(iter(difflib.get_close_matches(name, list(known), 1, cutoff)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence to end a message with, after a space; an empty text if no name is similar. Pure.

    Args:
        name: the name that the user wrote.
        known: all names that exist.
    """
    close = closest(name, known)
    return "" if close is None else f" Did you mean {close}?"
