"""What a format of files can do, and the errors of its values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO, Protocol

from refold.sinks.receiver import Change, Refused

Row = tuple[str | None, ...]
"""The columns of a row as texts that Postgres reads, None for NULL."""

_SHOWN = 60
"""Characters of a value in a message."""


class FileFormat(Protocol):
    """A format: it writes the rows of a slice into a file, and reads them back as they were given."""

    @property
    def ending(self) -> str:
        """Return how the names of its files end, such as `.csv.gz`."""
        ...

    def write(self, file: BinaryIO, rows: Iterable[Change]) -> None:
        """Write rows; the same rows always become the same bytes.

        Raises:
            Refused: the format has no form for a value.
        """
        ...

    def read(self, file: BinaryIO) -> Iterator[Row]:
        """Yield the rows of a file.

        Raises:
            Damaged: the file is not as `write` writes it, or has other columns.
        """
        ...


def refused(change: Change, column: str, value: str, reason: str, remedy: str) -> Refused:
    """Return the error for a value that a format cannot hold.

    Args:
        change: the row.
        column: the column's name.
        value: the value.
        reason: completes "the column … holds …, ".
        remedy: what to write in the projection or the sink's file.
    """
    shown = value if len(value) <= _SHOWN else value[:_SHOWN] + "…"
    return Refused(f"the column {column!r} holds {shown!r}, {reason} (row {change.key})", remedy=remedy)
