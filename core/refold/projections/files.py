"""The files of a project as editors and operating systems leave them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from refold.errors import DefinitionError


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
