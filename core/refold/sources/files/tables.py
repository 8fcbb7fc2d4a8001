"""CSV files, and files with columns aligned by blanks."""

import csv
import re
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import NamedTuple, TypedDict

from refold.errors import InputError
from refold.sources.files.lines import KEPT_BYTES, MAX_LINE_BYTES, Line, LineReader, Lines
from refold.sources.files.records import LINE_END, Record, Records, Source

_WORDS = re.compile(r"[^ \t\r\n\f\v]+").findall


@dataclass(frozen=True, slots=True)
class Habits:
    """What a program writes into CSV besides the values.

    Args:
        nulls: texts that mean that there is no value.
        trim: leave out white space around values.
    """

    nulls: frozenset[str] = frozenset()
    trim: bool = False

    def cleaned(self, rows: Sequence[list[str]]) -> Sequence[list[str]]:
        """Return values as they are meant; one that is absent is empty."""
        if self.trim:
            rows = [[value.strip() for value in values] for values in rows]
        if self.nulls:
            rows = [["" if value in self.nulls else value for value in values] for values in rows]
        return rows


NO_HABITS = Habits()
_SEPARATOR = re.compile(rb'"?sep=(?P<delimiter>[^"\r\n\x00\x80-\xff])"?\s*', re.IGNORECASE)


def separator(lines: LineReader) -> str | None:
    """Return the delimiter that the first line names for Excel (`sep=;`), and read past that line; None without it.

    Args:
        lines: lines of a CSV file, from its beginning.
    """
    found = _SEPARATOR.fullmatch(lines.first())
    if found is None:
        return None
    next(lines)
    return found["delimiter"].decode()


class _Rows(NamedTuple):
    """Rows that follow one another, none of them blank.

    Args:
        lines: line of each.
        raws: text of each, perhaps with its line end.
        values: values of each.
        error: what is wrong with the only row.
    """

    lines: Sequence[int]
    raws: Sequence[str]
    values: Sequence[list[str]]
    error: str | None = None


class _Table(Source):
    """Rows under named columns."""

    columns: tuple[str, ...]
    is_text = True
    absent = ""

    def __init__(self, lines: LineReader, name: str, columns: Sequence[str] | None, habits: Habits = NO_HABITS) -> None:
        super().__init__(lines, name)
        self._habits = habits
        self._rows = self._split()
        self.columns = self._header() if columns is None else tuple(column.strip() for column in columns)
        self._check_columns()

    @abstractmethod
    def _split(self) -> Iterator[_Rows]:
        """Yield the rows, as many at once as the file gives."""

    def _header(self) -> tuple[str, ...]:
        for (_, *lines), (raw, *raws), (names, *values), error in self._rows:
            if error:
                raise InputError(f"{self._lines.label}: the header {error}: {raw[:80]!r}")
            self._rows = chain([_Rows(lines, raws, values)] if lines else [], self._rows)
            return tuple(name.strip() or f"column_{place}" for place, name in enumerate(names, 1))
        raise InputError(f"{self._lines.label} is empty", remedy="A CSV file starts with a header line.")

    def _check_columns(self) -> None:
        if not all(self.columns):
            raise InputError("--columns has an empty name", remedy="Name every column: a,b,c.")
        twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if twice:
            raise InputError(
                f"{self._lines.label} has the column {twice[0]!r} more than once",
                remedy="Rename it in the header, or name all columns with --columns and remove the header line.",
            )

    def pieces(self) -> Iterator[Records | list[Record]]:
        columns = self.columns
        row = 1
        for lines, raws, values, error in self._rows:
            if error is None and set(map(len, values)) == {len(columns)}:
                yield Records(row, lines, raws, self._habits.cleaned(values), columns)
            else:
                found = zip(count(row), lines, raws, values, strict=False)
                yield [self._record(at, line, raw, one, error) for at, line, raw, one in found]
            row += len(values)

    def _record(self, row: int, line: int, raw: str, values: list[str], error: str | None) -> Record:
        if error is None and len(values) != len(self.columns):
            error = f"has {len(values)} values for {len(self.columns)} columns"
        raw = raw.rstrip(LINE_END)
        if error is not None:
            return Record(line, row, raw, None, f"the row {error}")
        (cleaned,) = self._habits.cleaned([values])
        return Record(line, row, raw, dict(zip(self.columns, cleaned, strict=True)))


class Whitespace(_Table):
    """A source with columns aligned by blanks."""

    def _split(self) -> Iterator[_Rows]:
        for line in self._lines:
            values = _WORDS(line.text)
            if values:
                yield _Rows([line.number], [line.text], [values], line.error)


class _Form(TypedDict):
    """The arguments of `csv.reader`."""

    delimiter: str
    strict: bool
    skipinitialspace: bool


class Csv(_Table):
    """A CSV source (RFC 4180) with any delimiter; quoted values may contain line ends."""

    def __init__(
        self,
        lines: LineReader,
        name: str,
        columns: Sequence[str] | None,
        delimiter: str = ",",
        habits: Habits = NO_HABITS,
    ) -> None:
        self._feed = _Feed(lines)
        # strict: half-quoted values are an error and not a guess. A blank before a quote belongs to no value.
        self._form: _Form = {"delimiter": delimiter, "strict": True, "skipinitialspace": habits.trim}
        self._csv = csv.reader(self._feed, **self._form)
        # The limit is the module's, for the whole process; it is only ever raised.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
        super().__init__(lines, name, columns, habits)

    def _split(self) -> Iterator[_Rows]:
        feed = self._feed
        while True:
            if not feed.again:
                lines = feed.together()
                rows = self._whole(lines)
                if rows is not None:
                    if rows.values:
                        yield rows
                    if not lines:
                        return
                    continue
                feed.again.extend(lines)
            feed.begin()
            values: list[str] = []
            error = None
            try:
                # After an error the reader starts afresh with the next line.
                values = next(self._csv)
            except StopIteration:
                return
            except csv.Error as problem:
                error = _explain(str(problem), feed.taken)
            except _TooLong:
                error = f"opens a quote that is not closed within {MAX_LINE_BYTES} characters"
            if error:
                # A stray quote swallows what follows, which is read again as the rows that it looks like.
                feed.give_back()
            taken = feed.taken
            raw = "".join([line.text for line in taken]).rstrip(LINE_END)
            if len(raw) > KEPT_BYTES and error:
                raw, error = raw[:KEPT_BYTES], f"{error}; only the first {KEPT_BYTES} characters are kept"
            error = next((line.error for line in taken if line.error), error)
            if error or len(values) > 1 or raw.strip():
                yield _Rows([taken[0].number], [raw], [values], error)

    def _whole(self, lines: Lines | list[Line]) -> _Rows | None:
        """Return the rows of lines that are one row each or blank; None if any is not, or if it has an error."""
        if not isinstance(lines, Lines):
            return None if lines else _Rows([], [], [])
        numbers: Sequence[int] = range(lines.number, lines.number + len(lines))
        texts = lines.texts
        try:
            rows = list(csv.reader(texts, **self._form))
        except csv.Error:
            return None
        if len(rows) != len(texts):
            return None
        if any(len(values) < 2 for values in rows):
            filled = [at for at, values in enumerate(rows) if len(values) > 1 or texts[at].strip()]
            numbers = [numbers[at] for at in filled]
            texts, rows = [texts[at] for at in filled], [rows[at] for at in filled]
        return _Rows(numbers, texts, rows)


def _explain(problem: str, taken: Sequence[Line]) -> str:
    """Translate an error of the csv module for the user."""
    if "unexpected end of data" in problem:
        return "opens a quote that is never closed"
    if len(taken) > 1:
        return f"opens a quote that is closed within a value, in line {taken[-1].number}"
    if "new-line character" in problem:
        return "has a carriage return in it: convert the line ends (tr '\\r' '\\n') or quote the value"
    return f"is not valid CSV: {problem}"


class _TooLong(Exception):
    """The record is too long for the memory, or its end is missing."""


class _Feed:
    """An iterator that feeds lines to the CSV reader and keeps the lines of the current record."""

    def __init__(self, lines: LineReader) -> None:
        self._lines = lines
        self.again: deque[Line] = deque()
        self._characters = 0
        self.taken: list[Line] = []

    def together(self) -> Lines | list[Line]:
        """Return the next lines; they are not part of a record yet."""
        return self._lines.together()

    def begin(self) -> None:
        """Start a new record."""
        self.taken.clear()
        self._characters = 0

    def give_back(self) -> None:
        """Keep only the first line in the record; the others are read again."""
        self.again.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.again.popleft() if self.again else next(self._lines)
        self.taken.append(line)
        self._characters += len(line.text)
        if line.cut or self._characters > MAX_LINE_BYTES:
            raise _TooLong
        return line.text
