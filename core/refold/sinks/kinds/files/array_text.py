"""The text that Postgres writes for arrays of one dimension."""

from __future__ import annotations

import re
from collections.abc import Iterable

_MUST_QUOTE = re.compile(r'["\\{}, \t\n\v\f\r]|^\Z|^null\Z', re.IGNORECASE)
_ELEMENT = re.compile(r'(?:"((?:[^"\\]|\\.)*)"|([^"\\{},]+))(,(?!\})|(?=\}\Z))', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def array_text(texts: Iterable[str | None]) -> str:
    """Return the text of an array of elements that are no arrays. Pure."""
    return "{" + ",".join("NULL" if one is None else _quoted(one) for one in texts) + "}"


def elements(text: str) -> list[str | None]:
    """Return the elements of an array of one dimension that begins at 1. Pure.

    Raises:
        ValueError: it has other dimensions.
    """
    found: list[str | None] = []
    place = 1
    if not (text.startswith("{") and text.endswith("}")):
        raise ValueError("it has bounds of its own")
    while place < len(text) - 1:
        one = _ELEMENT.match(text, place)
        if one is None:
            raise ValueError("it has several dimensions")
        quoted, plain = one[1], one[2]
        if quoted is not None:
            found.append(_ESCAPE.sub(r"\1", quoted))
        else:
            found.append(None if plain == "NULL" else plain)
        place = one.end()
    return found


def _quoted(text: str) -> str:
    if not _MUST_QUOTE.search(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
