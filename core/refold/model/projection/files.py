"""The files of a project as editors and operating systems leave them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from refold.errors import DefinitionError

_PUT_AWAY = re.compile(
    r"#.*\#|.*(~|\.(sw[a-p]|tmp|temp|part|crdownload|orig|rej|bak|backup|save|old|off|disabled"
    r"|example|sample|template|dist|py[cio]|log|out|md|rst))",
    re.IGNORECASE | re.DOTALL,
)
"""What editors, merges and downloads leave behind, and what somebody has put out of the way."""
_DIALECTS = (".psql", ".pgsql")
_PLAIN = ("", ".txt")
_A_QUERY = re.compile(
    r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)*"
    r"(?:select\s.*\sfrom\s|with\s+[\w\"]+\s+as\s*\(|create\s+(?:or\s+replace\s+)?view\s)",
    re.IGNORECASE | re.DOTALL,
)
_BEGINNING = 64 * 1024


@dataclass(frozen=True, slots=True)
class Overlooked:
    """A file that defines nothing because of how its name ends, and that somebody may mean.

    Args:
        path: the file.
        meant: the name under which it would define something.
    """

    path: Path
    meant: str


def project_files(
    folder: Path, *extensions: str, wrong: Callable[[DefinitionError], object] | None = None
) -> list[Path]:
    """The files below a folder that define something, sorted by name within their folders.

    Extensions count in upper case too. What begins with a dot or an underscore defines nothing, be it a file or a
    folder: `._daily.sql` is a shadow that macOS leaves, `_draft.sql` and `_shared/` are the author's.

    Args:
        folder: where to look; folders in it are looked into, and there need not be any.
        extensions: such as `.sql`, in lower case.
        wrong: told of each that has the name of another, and is left out then.

    Raises:
        DefinitionError: two of them have the same name, and nobody is told.
    """
    found: dict[str, Path] = {}
    for path in _below(folder) if folder.is_dir() else ():
        if path.suffix.lower() not in extensions:
            continue
        other = found.setdefault(path.stem, path)
        if other is not path:
            error = DefinitionError(
                f"{other.relative_to(folder)} has the same name",
                path=path,
                remedy="Rename one: names are unique across folders.",
            )
            if wrong is None:
                raise error
            wrong(error)
    return list(found.values())


def overlooked(folder: Path, *extensions: str) -> list[Overlooked]:
    """The files below a folder that define nothing, though they look as if they should.

    Windows hides the ends of names that it knows, so that `daily.sql.txt` looks like `daily.sql` there. What an editor
    or a merge leaves (`daily.sql~`, `daily.sql.orig`) nobody means.

    Args:
        folder: where to look; there need not be any.
        extensions: those of files that define something, in lower case.
    """
    found = []
    for path in _below(folder) if folder.is_dir() else ():
        meant = None if _PUT_AWAY.fullmatch(path.name) else _meant(path, extensions)
        if meant is not None and path.suffix.lower() not in extensions:
            found.append(Overlooked(path, meant))
    return found


def _meant(path: Path, extensions: tuple[str, ...]) -> str | None:
    """The name that a file was to have; None where nothing speaks for it."""
    name = path.name.strip()
    ends = [suffix.strip().lower() for suffix in path.suffixes]
    for at, end in enumerate(ends):
        if end in extensions:
            return name[: len(name) - sum(map(len, path.suffixes[at + 1 :]))].rstrip()
    if ".sql" in extensions and (path.suffix.lower() in _DIALECTS or (path.suffix in _PLAIN and _is_query(path))):
        return f"{path.stem}.sql"
    return None


def _is_query(path: Path) -> bool:
    """Whether a text begins as a query or a view does."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return _A_QUERY.match(file.read(_BEGINNING)) is not None
    except (OSError, UnicodeDecodeError):
        return False


def read_text(path: Path) -> str:
    """The text of a project's file, without the byte order mark that some editors put first.

    Raises:
        DefinitionError: it cannot be read, or is no text in UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DefinitionError("not UTF-8", path=path, remedy="Save it as UTF-8.") from error
    except OSError as error:
        raise DefinitionError(f"cannot be read: {error.strerror}", path=path) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DefinitionError("holds a NUL character", path=path, line=line, remedy="Save it as UTF-8.")
    return text


def _below(folder: Path) -> Iterator[Path]:
    """Files before folders, each in the order of their names; a link to a folder is not followed, it may lead back."""
    inner: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "_")):
            continue
        if path.is_dir():
            if not path.is_symlink():
                inner.append(path)
        else:
            yield path
    for one in inner:
        yield from _below(one)
