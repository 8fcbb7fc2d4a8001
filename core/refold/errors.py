"""refold's errors: one class for each action that a caller can take.

RefoldError
├── InputError          a file, an option or a mapping is wrong: correct the call
├── DefinitionError     a projection's file is wrong: correct the file (path and line are given)
│   ├── ViewError       a file in sql/views is wrong: correct it
│   └── Mistakes        several files are wrong: correct all of them
├── DatabaseError       the database does not meet refold's needs: migrate, grant, or check the server
│   ├── NotInstalled    the schema is missing or old: run `refold migrate`
│   ├── OnStandby       the server is read-only: connect to the primary
│   └── ForeignCluster  the cursors belong to another cluster: after a restore, run `refold recover`
├── Costly              an answer would read much: agree to the cost, and ask again
├── Overloaded          producers are refused for now: try again after `retry_after` seconds
└── BuildError          a build cannot do this in its present state: the message says what to do first
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


class RefoldError(Exception):
    """Root of refold's errors.

    Args:
        message: what is wrong and where; `str(error)` returns it.
        remedy: what the user can do about it, if anything is known.
    """

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy


class InputError(RefoldError):
    """A file, an option or a mapping is wrong."""


class DefinitionError(RefoldError):
    """A projection's file cannot become a metric.

    Args:
        message: what is wrong; the path and line are put before it.
        path: the file, if there is one.
        line: the line of the file, from 1, if it is known.
        remedy: what the author can write instead, if anything is known.
    """

    def __init__(
        self, message: str, *, path: Path | None = None, line: int | None = None, remedy: str | None = None
    ) -> None:
        where = "" if path is None else f"{path}:{line}: " if line else f"{path}: "
        super().__init__(where + message, remedy=remedy)
        self.path = path
        self.line = line


class ViewError(DefinitionError):
    """A file in sql/views contains more than its view, or its view cannot be created."""


class Mistakes(DefinitionError):
    """Several files are wrong; `errors` has one error for each."""

    def __init__(self, errors: Sequence[RefoldError]) -> None:
        super().__init__("\n".join(map(str, errors)))
        self.errors = tuple(errors)


def each(errors: Iterable[RefoldError]) -> list[RefoldError]:
    """Return all errors, with groups of mistakes expanded."""
    return [one for error in errors for one in (error.errors if isinstance(error, Mistakes) else (error,))]


def at_once(errors: Iterable[RefoldError]) -> RefoldError:
    """Combine at least one error: a single error is returned unchanged, several as `Mistakes`."""
    flat = each(errors)
    return flat[0] if len(flat) == 1 else Mistakes(flat)


class DatabaseError(RefoldError):
    """The database does not meet refold's needs."""


class NotInstalled(DatabaseError):
    """refold's schema is missing from this database, or older than this program."""


class OnStandby(DatabaseError):
    """The server is a standby, but the operation writes."""


class ForeignCluster(DatabaseError):
    """The cursors belong to another cluster, or name transactions that this cluster has not had."""


class BuildError(RefoldError):
    """A build does not allow the operation in its present state."""


class Costly(RefoldError):
    """An answer would read much, and nobody has agreed to that.

    Args:
        events: how many events it would read, about.
        seconds: how long that takes, about.
    """

    def __init__(self, events: int, seconds: float) -> None:
        super().__init__(
            f"the answer reads about {events:,} events, which takes about {seconds:,.0f} s",
            remedy="Run it again with --yes.",
        )
        self.events = events
        self.seconds = seconds


class Overloaded(RefoldError):
    """Producers are refused for now; `retry_after` says for how long, in seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message, remedy=f"Try again in {retry_after:.0f} s; `refold status` shows the pressure.")
        self.retry_after = retry_after
