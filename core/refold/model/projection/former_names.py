"""The files of a folder as they were when projections had other names: whether they say what was deployed.

A transform's name stands in its code, a stream's in the queries that read it: with another name the text is another,
and so is its fingerprint. That of the text with the name put back tells whether anything else is.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from refold.model.projection.definition import Definition, load
from refold.model.projection.files import read_text


def as_called(folder: Path, names: Mapping[str, str]) -> dict[str, Definition]:
    """The projections of a folder, some of them called as they were before.

    A name counts wherever it stands as a word in the file of its projection, or in one that reads it. Where a column
    is called so, too, the text becomes another than it was, and nothing is taken for the same by mistake.

    Args:
        folder: the folder.
        names: how projections were called, by what they are called now.

    Returns:
        The definitions that are right, by their names of then; none where one of these is another's by now.
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
                # The bytes count: as the file is read, without its mark, and with the line breaks that it has.
                text = _with(read_text(definition.path), words)
                path.unlink()
                path.with_name(names.get(name, name) + path.suffix).write_text(text, encoding="utf-8")
        return load(copy).definitions


def _with(text: str, words: Mapping[str, str]) -> str:
    """A text with other words in the places of some."""
    return re.sub(rf"\b({'|'.join(map(re.escape, words))})\b", lambda found: words[found[1]], text)
