"""Spans of time, as users write and read them."""

from __future__ import annotations

import re
from datetime import timedelta

from refold.errors import InputError

_FOR_EXAMPLE = "A number and a unit, up to a century: 30s, 90m, 12h, 7d or 2w. For example --since 7d."
_SPAN = re.compile(r"(\d+)([smhdw])")
LONGEST = timedelta(days=36_525)
"""A century: before that there are no incidents, and soon no dates."""
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def span(text: str) -> timedelta:
    """A time span such as 90m, 12h, 7d or 2w.

    Raises:
        InputError: it is not one.
    """
    match = _SPAN.fullmatch(text)
    if match is None:
        raise InputError(f"{text!r} is not a time span", remedy=_FOR_EXAMPLE)
    # Of so many digits it is too long in any unit but seconds, of which nobody writes that many.
    length = timedelta(**{_UNITS[match[2]]: int(match[1])}) if len(match[1]) <= 7 else LONGEST * 2
    if not timedelta(0) < length <= LONGEST:
        raise InputError(f"{text!r} is {'no time at all' if not length else 'too long'}", remedy=_FOR_EXAMPLE)
    return length


def duration(seconds: float) -> str:
    """A time span in the unit that one reads easily."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.1f} d"
