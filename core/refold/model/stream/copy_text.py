"""Text for COPY and for array literals, made in Python: psycopg's adapters take three times as long."""

import re
from collections.abc import Iterable, Sequence

NULL = "\\N"

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def escaped(text: str) -> str:
    """Return a column's value in COPY's text format."""
    # Most texts need no escapes, and this test takes a fifth of the time of a translation.
    if text.isprintable() and "\\" not in text:
        return text
    return text.translate(_ESCAPES)


_ESCAPED = re.compile(r"\\(.)")
_MEANT = {"t": "\t", "n": "\n", "r": "\r"}


def unescaped(column: str) -> str:
    """Return the text of a column's value in COPY's text format, as `escaped` writes it."""
    return _ESCAPED.sub(lambda one: _MEANT.get(one[1], one[1]), column)


def escaped_column(texts: Sequence[str]) -> Iterable[str]:
    """Return values of one column in COPY's text format: mostly they are seen together to need no escapes."""
    together = "".join(texts)
    return texts if together.isprintable() and "\\" not in together else map(escaped, texts)


_QUOTED = str.maketrans({"\\": "\\\\", '"': '\\"'})


def quoted(text: str) -> str:
    """Return a text as an element of an array literal."""
    return '"' + text.translate(_QUOTED) + '"'


def array(values: Iterable[str]) -> str:
    """Return an array literal of texts."""
    return "{" + ",".join(map(quoted, values)) + "}"
