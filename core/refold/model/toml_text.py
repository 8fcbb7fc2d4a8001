"""The text of a TOML file, with the lines of its keys for messages. Pure."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from refold.errors import DefinitionError


def parsed(source: str, path: Path, *, remedy: str) -> dict[str, Any]:
    """Return the keys of a file.

    Args:
        source: the text of the file.
        path: the file, for the message.
        remedy: what to do if the text is not TOML.

    Raises:
        DefinitionError: the text is not TOML.
    """
    try:
        return tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        raise DefinitionError(
            f"is not TOML: {error}", path=path, line=int(found[1]) if found else None, remedy=remedy
        ) from error


def line_of(source: str, key: str) -> int | None:
    """Return the line of a file on which a key is written; None if it is not there. Pure."""
    table, _, inner = key.rpartition(".")
    within = ""
    for number, line in enumerate(source.splitlines(), 1):
        head = re.match(r"\s*\[\s*([\w.]+)\s*\]", line)
        if head:
            within = head[1]
            if key == within:
                return number
        elif re.match(rf"\s*{re.escape(inner)}\s*=", line) and within == table:
            return number
    return None
