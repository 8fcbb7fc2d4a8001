"""Find and read the files of a project, whatever editors and operating systems have done to them."""

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
"""Names of files that editors, merges and downloads leave behind, or that a person has disabled."""
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
    """A file that refold ignores because of its extension, although its author may mean it.

    Args:
        path: the file.
        meant: the name under which refold would read it.
    """

    path: Path
    meant: str


def project_files(
    folder: Path, *extensions: str, wrong: Callable[[DefinitionError], object] | None = None
) -> list[Path]:
    """Return the files below a folder that define projections or views, sorted by name within their folders.

    Extensions may be in upper case. Files and folders whose names begin with a dot or an underscore are ignored:
    macOS leaves files such as `._daily.sql`, and `_draft.sql` and `_shared/` are the author's drafts and helpers.

    Args:
        folder: where to look, at any depth; it may not exist.
        extensions: such as `.sql`, in lower case.
        wrong: called with an error for each file that has the name of another; the file is then left out.

    Raises:
        DefinitionError: two files have the same name, and `wrong` is not given.
    """
    found: dict[str, Path] = {}
    for path in _defining(folder, extensions):
        other = found.setdefault(path.stem, path)
        if other is not path:
            error = DefinitionError(
                f"{other.relative_to(folder)} has the same name",
                path=path,
                remedy="Rename one of the two files: names are unique across folders.",
            )
            if wrong is None:
                raise error
            wrong(error)
    return list(found.values())


def files_named(folder: Path, name: str, *extensions: str) -> list[Path]:
    """Return the files below a folder that define the projection or view of this name; more than one is a mistake.

    Args:
        folder: where to look, at any depth; it may not exist.
        name: the projection or view.
        extensions: such as `.sql`, in lower case.
    """
    return [path for path in _defining(folder, extensions) if path.stem == name]


def overlooked(folder: Path, *extensions: str) -> list[Overlooked]:
    """Return the files below a folder that refold ignores, but that look like definitions.

    Windows hides known extensions, so that `daily.sql.txt` looks like `daily.sql` there. Files that an editor or a
    merge leaves (`daily.sql~`, `daily.sql.orig`) are not reported.

    Args:
        folder: where to look, at any depth; it may not exist.
        extensions: the extensions that refold reads, in lower case.
    """
    found = []
    for path in _below(folder) if folder.is_dir() else ():
        meant = None if _PUT_AWAY.fullmatch(path.name) else _meant(path, extensions)
        if meant is not None and path.suffix.lower() not in extensions:
            found.append(Overlooked(path, meant))
    return found


def _meant(path: Path, extensions: tuple[str, ...]) -> str | None:
    """Return the name that a file was probably meant to have; None if nothing in it suggests one."""
    name = path.name.strip()
    ends = [suffix.strip().lower() for suffix in path.suffixes]
    for at, end in enumerate(ends):
        if end in extensions:
            return name[: len(name) - sum(map(len, path.suffixes[at + 1 :]))].rstrip()
    if ".sql" in extensions and (path.suffix.lower() in _DIALECTS or (path.suffix in _PLAIN and _is_query(path))):
        return f"{path.stem}.sql"
    return None


def _is_query(path: Path) -> bool:
    """Return whether the text of a file begins like a query or a view."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return _A_QUERY.match(file.read(_BEGINNING)) is not None
    except (OSError, UnicodeDecodeError):
        return False


def read_text(path: Path) -> str:
    """Return the text of a project's file, without the byte order mark that some editors put first.

    Raises:
        DefinitionError: the file cannot be read, or is not text in UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DefinitionError("is not UTF-8", path=path, remedy="Save it as UTF-8.") from error
    except OSError as error:
        raise DefinitionError(f"cannot be read: {error.strerror}", path=path) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DefinitionError("holds a NUL character", path=path, line=line, remedy="Save it as UTF-8.")
    return text


def _defining(folder: Path, extensions: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files below a folder that have one of the extensions, in any case."""
    for path in _below(folder) if folder.is_dir() else ():
        if path.suffix.lower() in extensions:
            yield path


def _below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, files before folders, each sorted by name.

    Links to folders are not followed: they may lead back.
    """
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
