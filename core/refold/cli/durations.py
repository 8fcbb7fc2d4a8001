"""Time spans as users write and read them."""

from __future__ import annotations

import re
from datetime import timedelta

from refold.errors import InputError

_FOR_EXAMPLE = "Write a number and a unit, up to 100 years: 30s, 90m, 12h, 7d or 2w. For example --since 7d."
_SPAN = re.compile(r"(\d+)([smhdw])")
LONGEST = timedelta(days=36_525)
"""100 years; much longer spans would leave the range of dates."""
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def span(text: str) -> timedelta:
    """Parse a time span such as 90m, 12h, 7d or 2w.

    Raises:
        InputError: the text is not a time span.
    """
    match = _SPAN.fullmatch(text)
    if match is None:
        raise InputError(f"{text!r} is not a time span", remedy=_FOR_EXAMPLE)
    # Of so many digits it is too long in any unit but seconds, of which nobody writes that many.
    length = timedelta(**{_UNITS[match[2]]: int(match[1])}) if len(match[1]) <= 7 else LONGEST * 2
    if not timedelta(0) < length <= LONGEST:
        raise InputError(f"{text!r} is {'not longer than zero' if not length else 'too long'}", remedy=_FOR_EXAMPLE)
    return length
