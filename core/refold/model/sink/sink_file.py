"""A file of `sinks/`: which metric goes to which receiver."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from refold.errors import DefinitionError, RefoldError
from refold.model.projection.files import project_files, read_text
from refold.model.toml_text import line_of, parsed
from refold.suggest import did_you_mean

Grain = Literal["rows", "events"]
GRAINS: tuple[Grain, ...] = get_args(Grain)

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,39}")
_KEYS = ("projection", "kind", "grain")


@dataclass(frozen=True, slots=True)
class SinkFile:
    """A sink as its file defines it.

    Args:
        name: the sink, from the file's name.
        path: the file.
        source: the text of the file.
        projection: the metric whose rows it delivers.
        kind: the kind of its receiver.
        grain: whether it delivers the newest row of each key, or each row of a stream once.
        options: the keys of the kind's part of the file; the kind checks them.
    """

    name: str
    path: Path
    source: str
    projection: str
    kind: str
    grain: Grain
    options: dict[str, Any]

    def wrong(self, key: str, message: str, remedy: str | None = None) -> DefinitionError:
        """Return an error at a key of the file, such as `webhook.url`."""
        return DefinitionError(f"{key}: {message}", path=self.path, line=line_of(self.source, key), remedy=remedy)


def sinks_beside(projections: Path) -> Path:
    """Return the folder of sinks that belongs to a folder of projections; it may not exist."""
    return projections.resolve().parent / "sinks"


def load_sinks(folder: Path, kinds: tuple[str, ...], mistakes: list[RefoldError]) -> list[SinkFile]:
    """Read every `*.toml` of a folder, and return the sinks that can be made.

    Args:
        folder: the folder of sinks; it may not exist.
        kinds: names of the kinds that are installed.
        mistakes: receives an error for every key that is wrong; the files with mistakes are left out.
    """
    found = []
    for path in project_files(folder, ".toml", wrong=mistakes.append):
        try:
            one = sink_file(path.stem, read_text(path), path, kinds, mistakes)
        except DefinitionError as error:
            mistakes.append(error)
        else:
            found += [] if one is None else [one]
    return found


def sink_file(
    name: str, source: str, path: Path, kinds: tuple[str, ...], mistakes: list[RefoldError]
) -> SinkFile | None:
    """Read the text of a file; return None after mistakes.

    Args:
        name: the sink, from the file's name.
        source: the text of the file.
        path: the file, for messages.
        kinds: names of the kinds that are installed.
        mistakes: receives an error for every key that is wrong.

    Raises:
        DefinitionError: the text is not TOML.
    """
    given = parsed(source, path, remedy='Write a text in quotes: kind = "webhook".')
    before = len(mistakes)

    def wrong(key: str, message: str, remedy: str | None = None) -> None:
        mistakes.append(DefinitionError(f"{key}: {message}", path=path, line=line_of(source, key), remedy=remedy))

    if not _NAME.fullmatch(name):
        mistakes.append(
            DefinitionError(
                f"{name!r} cannot name a sink",
                path=path,
                remedy="Use at most 40 small letters, digits and underscores.",
            )
        )
    projection, kind, grain = given.get("projection"), given.get("kind"), given.get("grain", "rows")
    if not isinstance(projection, str):
        wrong("projection", "is missing" if projection is None else "must be the name of a metric",
              'Write projection = "event_counts".')  # fmt: skip
    if not isinstance(kind, str):
        wrong("kind", "is missing" if kind is None else "must be a text", f'Write kind = "{kinds[0]}".')
    elif kind not in kinds:
        wrong("kind", f"{kind!r} is not known.{did_you_mean(kind, kinds)}", f"The kinds are {', '.join(kinds)}.")
    if grain not in GRAINS:
        wrong("grain", f"must be rows or events, not {grain!r}")
    for key, value in given.items():
        if key == kind:
            if not isinstance(value, dict):
                wrong(key, f"must be a table of options: [{key}]")
        elif key not in _KEYS:
            known = (*_KEYS, kind) if isinstance(kind, str) else _KEYS
            wrong(key, f"is not known.{did_you_mean(key, known)}", f"The keys are {', '.join(known)}.")
    if len(mistakes) > before:
        return None
    return SinkFile(name, path, source, str(projection), str(kind), grain, given.get(str(kind), {}))


def options_of(source: str) -> tuple[str, dict[str, Any]]:
    """Return the kind and its options from the text of a file that was deployed. Pure."""
    given = tomllib.loads(source)
    return given["kind"], given.get(given["kind"], {})
