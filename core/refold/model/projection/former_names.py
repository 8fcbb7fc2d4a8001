"""The files of a folder with former names put back, to find out whether a rename changed anything else.

A transform's name is part of its code, and a stream's name is part of the queries that read it. A rename therefore
changes the text and its fingerprint. The fingerprint of the text with the former name tells whether the rest is equal.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from refold.model.projection.definition import Definition, load
from refold.model.projection.files import read_text
from refold.model.projection.upcast import events_beside


def as_called(folder: Path, names: Mapping[str, str]) -> dict[str, Definition]:
    """Return the projections of a folder, some of them under their former names.

    A name is replaced wherever it is a word in the file of its projection, or in a file that reads it. If a column has
    the same name, the column is renamed too: the fingerprint then differs, and no change is overlooked.

    Args:
        folder: the folder of projections.
        names: the former names of projections, by their present names.

    Returns:
        The definitions without mistakes, by former name; none if another projection now has one of these names.
    """
    now = load(folder).definitions
    if any(old in now and old not in names for old in names.values()):
        return {}
    with tempfile.TemporaryDirectory(prefix="refold-called-") as directory:
        copy = Path(directory) / "projections"
        shutil.copytree(folder, copy, symlinks=True, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        for name, definition in now.items():
            assert definition.path is not None
            words = {one: names[one] for one in (name, definition.plan.stream) if one in names}
            if words:
                path = copy / definition.path.relative_to(folder)
                # The fingerprint is of this text: without the byte order mark, with the file's own line breaks.
                text = _with(read_text(definition.path), words)
                path.unlink()
                path.with_name(names.get(name, name) + path.suffix).write_text(text, encoding="utf-8")
        return load(copy, events=events_beside(folder)).definitions


def _with(text: str, words: Mapping[str, str]) -> str:
    """Return a text in which whole words are replaced by others."""
    return re.sub(rf"\b({'|'.join(map(re.escape, words))})\b", lambda found: words[found[1]], text)
