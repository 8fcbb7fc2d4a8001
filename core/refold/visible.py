"""Safe output of event text on a terminal: control characters are shown instead of executed.

Ids, actions, keys, errors and file names come from producers. On a terminal, an escape sequence can rename the window,
overwrite earlier output, or send input as if the user had typed it. A line break can forge a line of refold's output,
and a directional mark can reverse the text after it.
"""

from __future__ import annotations

import logging
import re
from typing import Any

_BREAKS = re.compile(r"(\r\n|[\n\t])")
_HIDDEN = re.compile(
    # C0, DEL and C1; directional marks; separators that terminals treat as line breaks; surrogates of invalid UTF-8.
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def visible(text: str, *, lines: bool = False) -> str:
    r"""Return the text with control characters escaped as in Python: `\n`, `\x1b`, `\u202e`. Pure.

    Args:
        text: the text; it may come from any source.
        lines: whether line breaks and tabs stay as they are, for text of several lines.
    """
    if lines:
        return "".join(part if part in ("\n", "\t") else visible(part) for part in _BREAKS.split(text))
    return _HIDDEN.sub(_written, text)


def visible_json(document: str) -> str:
    """Return a JSON document with control characters escaped as in JSON; its value stays the same. Pure.

    Outside of strings, JSON has no control characters except line breaks and tabs, which stay as they are.
    """
    parts = _BREAKS.split(document)
    return "".join(
        part if part in ("\n", "\t") else _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", part) for part in parts
    )


def _written(found: re.Match[str]) -> str:
    character = found[0]
    return _SHORT.get(character) or (f"\\x{ord(character):02x}" if character < "\u0100" else f"\\u{ord(character):04x}")


def log_on_stderr() -> None:
    """Write the log of this process to stderr: time, process, message, and the span of a record that has one."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(process)d %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


class _Formatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        text = visible(super().formatMessage(record))
        # Set while this process traces: see `refold.tracing.logs`.
        trace = getattr(record, "trace_id", "")
        return f"{text} trace_id={trace} span_id={getattr(record, 'span_id', '')}" if trace else text

    def formatException(self, ei: Any) -> str:
        return visible(super().formatException(ei), lines=True)
