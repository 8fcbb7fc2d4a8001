"""Prose for readers: numbers with their nouns, spans in readable units, and lines that break at words."""

from __future__ import annotations

import os
import re
import textwrap
from datetime import timedelta

_LABEL = re.compile(r" *(\S+ {2,})?")
_CALL = re.compile(r"`[^`\n]{1,60}`")


def room(width: int) -> int:
    """Return the width of a line in characters: COLUMNS if it is set, else `width`."""
    given = os.environ.get("COLUMNS", "")
    return int(given) if given.isdigit() and int(given) else width


def wrapped(text: str, width: int, *, indent: int | None = None) -> str:
    """Wrap prose at words; a long word, such as a URL or a path, stays whole. Pure.

    Args:
        text: the text; its own line breaks are kept.
        width: the width of a line, in characters; a longer word makes a longer line.
        indent: the indentation of continuation lines, in characters. By default they align with the text after the
            line's label; without a label they are indented by two more than the line.
    """
    return "\n".join(_wrapped(one, width, indent) for one in text.split("\n"))


def _wrapped(one: str, width: int, indent: int | None) -> str:
    if len(one) <= width:
        return one
    if indent is None:
        label = _LABEL.match(one)
        assert label is not None
        indent = len(label[0]) + 2 * (label[1] is None)
    # Keep commands in backticks on one line, so that users can copy them.
    whole = _CALL.sub(lambda call: call[0].replace(" ", "\0"), one)
    lines = textwrap.wrap(
        whole,
        max(width, indent + 20),
        subsequent_indent=" " * indent,
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines).replace("\0", " ")


def counted(number: int, what: str) -> str:
    """Return a number with its noun: `1 row`, `2,000 rows`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def duration(seconds: float) -> str:
    """Return a time span in a readable unit."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.1f} d"


def exact(span: timedelta) -> str:
    """Return a span that somebody chose, in full: `1 h 30 min`. Whoever set 90 s must not read 2 min."""
    left, parts = int(span.total_seconds()), []
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number:
            parts.append(f"{number:,} {unit}")
    return " ".join(parts) or "0 s"
