"""Records, and the sources that yield them and report their progress."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from refold.sources.files.lines import LineReader

LINE_END = "\r\n"
"""Characters that end a line."""


class Record(NamedTuple):
    """One record of a source: its `fields`, or the `error` that prevented reading them."""

    line: int
    """Physical line on which it starts, from 1; in Parquet, its row."""
    row: int
    """Number among the data records, from 1; blank lines and the header do not count, errors do."""
    raw: str
    """The text of the record in the file, without the last line end."""
    fields: dict[str, object] | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Records:
    """Records that follow one another, none with an error: most need no look at each.

    Args:
        row: number of the first among the data records.
        lines: physical line of each.
        raws: text of each, perhaps with its line end.
        values: the fields of each: an object, or the values of the columns.
        columns: the columns; None for objects.
    """

    row: int
    lines: Sequence[int]
    raws: Sequence[str]
    values: Sequence[Any]
    columns: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Record]:
        row = self.row
        for at, (line, raw, values) in enumerate(zip(self.lines, self.raws, self.values, strict=True)):
            fields = values if self.columns is None else dict(zip(self.columns, values, strict=True))
            yield Record(line, row + at, raw.rstrip(LINE_END), fields)

    def __getitem__(self, part: slice) -> Records:
        begin, end, _ = part.indices(len(self))
        return Records(
            self.row + begin, self.lines[begin:end], self.raws[begin:end], self.values[begin:end], self.columns
        )


class _Nothing:
    """The type of a value that no record has."""


class Source(ABC):
    """An open source of records, and a context manager; it can be iterated once."""

    columns: tuple[str, ...] | None = None
    """Columns of a CSV or Parquet file; None for JSON, where each record has its own."""
    is_text = False
    """Whether all values are text, as in CSV."""
    absent: object = _Nothing()
    """The value that counts as absent: empty text in CSV. In JSON every value counts, null too."""

    def __init__(self, lines: LineReader, name: str) -> None:
        self.name = name
        self._lines = lines

    @property
    def bytes_read(self) -> int:
        """Return the bytes of the file read so far (compressed bytes, if it is compressed)."""
        return self._lines.bytes_read

    @property
    def total_bytes(self) -> int | None:
        """Return the size of the file in the same unit; None for a pipe."""
        return self._lines.total_bytes

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()

    def __iter__(self) -> Iterator[Record]:
        for piece in self.pieces():
            yield from piece

    @abstractmethod
    def pieces(self) -> Iterator[Records | list[Record]]:
        """Yield the records in order, as many at once as the file gives."""
