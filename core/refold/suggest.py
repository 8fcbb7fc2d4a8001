"""Names that a user may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Returns the known name that is most like another, or None if none is. Pure.

    Args:
        name: what the user wrote.
        known: the names there are.
        cutoff: how alike they must be, from 0 to 1 (`difflib.SequenceMatcher.ratio`).
    """
    return next(iter(difflib.get_close_matches(name, list(known), 1, cutoff)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns a sentence to end a message with, after a space; nothing if no name is alike. Pure."""
    close = closest(name, known)
    return "" if close is None else f" Did you mean {close}?"
