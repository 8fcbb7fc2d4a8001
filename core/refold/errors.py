"""What can go wrong, one class for each thing a caller can do about it.

RefoldError
├── InputError          a file, an option or a mapping is wrong: correct the call
├── DefinitionError     a projection's file is wrong: correct the file (path and line are given)
│   ├── ViewError       a file in sql/views is: correct it
│   └── Mistakes        several files are: all that is wrong with them, at once
├── DatabaseError       the database is not as refold needs it: migrate, grant, or look at the server
│   ├── NotInstalled    the schema is missing or old: run `refold migrate`
│   ├── OnStandby       nothing can be written here: connect to the primary
│   └── ForeignCluster  the coordinates mean nothing here: a restore happened, run `refold recover`
└── BuildError          a build cannot do this now: the message names what to do first
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


class RefoldError(Exception):
    """Root of refold's errors. `str(error)` says what happened; `remedy`, when there is one, what to do."""

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy


class InputError(RefoldError):
    """A file, an option or a mapping is wrong."""


class DefinitionError(RefoldError):
    """A projection's file cannot be kept as a metric."""

    def __init__(
        self, message: str, *, path: Path | None = None, line: int | None = None, remedy: str | None = None
    ) -> None:
        where = "" if path is None else f"{path}:{line}: " if line else f"{path}: "
        super().__init__(where + message, remedy=remedy)
        self.path = path
        self.line = line


class ViewError(DefinitionError):
    """A file in sql/views makes more than its view, or its view cannot be made."""


class Mistakes(DefinitionError):
    """Several files cannot be kept; what is wrong with each is in `errors`."""

    def __init__(self, errors: Sequence[RefoldError]) -> None:
        super().__init__("\n".join(map(str, errors)))
        self.errors = tuple(errors)


def each(errors: Iterable[RefoldError]) -> list[RefoldError]:
    """All of these, with every mistake of several by itself."""
    return [one for error in errors for one in (error.errors if isinstance(error, Mistakes) else (error,))]


def at_once(errors: Iterable[RefoldError]) -> RefoldError:
    """All mistakes as one error; one alone is itself. There is one at least."""
    flat = each(errors)
    return flat[0] if len(flat) == 1 else Mistakes(flat)


class DatabaseError(RefoldError):
    """The database is not as refold needs it."""


class NotInstalled(DatabaseError):
    """refold's schema is missing from this database, or older than this program."""


class OnStandby(DatabaseError):
    """The server is a standby, and what was asked of it writes."""


class ForeignCluster(DatabaseError):
    """The coordinates in this database are another cluster's, or speak of transactions that this one has not had."""


class BuildError(RefoldError):
    """A build cannot do what was asked of it in its present state."""
