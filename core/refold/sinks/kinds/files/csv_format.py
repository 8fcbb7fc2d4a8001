"""CSV by RFC 4180 with a header; NULL is an empty field, and an empty text is `""`.

`COPY … FROM … (FORMAT csv, HEADER)` reads back what was delivered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from refold.sinks.kinds.files.file_format import Row
from refold.sinks.kinds.files.packing import Packing
from refold.sinks.receiver import Change, Column, Damaged

_MUST_QUOTE = re.compile(r'[",\r\n]|^$|^\s|\s$|^\\\.$')
r"""An empty text would be NULL, readers trim blanks, and COPY takes a line `\.` for the end."""
_FIELD = re.compile(r'(?:"([^"]*(?:""[^"]*)*)"|([^",\r\n]*))(,|\Z)')
_END = "\r\n"


class Csv:
    """The format.

    Args:
        columns: the columns of the rows.
        packing: the compression.
    """

    def __init__(self, columns: Sequence[Column], packing: Packing) -> None:
        self._names = tuple(column.name for column in columns)
        self._packing = packing
        self.ending = ".csv" + packing.ending

    def write(self, file: BinaryIO, rows: Iterable[Change]) -> None:
        with self._packing.writer(file) as text:
            text.write(_line(self._names))
            for change in rows:
                assert change.values is not None
                text.write(_line(change.values))

    def read(self, file: BinaryIO) -> Iterator[Row]:
        with self._packing.reader(file) as text:
            records = _records(text)
            header = next(records, None)
            if header != self._names:
                raise Damaged(f"the header is not {','.join(self._names)}")
            for record in records:
                if len(record) != len(self._names):
                    raise Damaged(f"a line has {len(record)} fields instead of {len(self._names)}")
                yield record


def _line(values: Sequence[str | None]) -> str:
    return ",".join("" if one is None else _quoted(one) for one in values) + _END


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if _MUST_QUOTE.search(text) else text


def _records(lines: Iterable[str]) -> Iterator[Row]:
    """Yield the fields of each record; a record ends with the line at which its quotes are closed."""
    pending: list[str] = []
    quotes = 0
    for line in lines:
        pending.append(line)
        quotes += line.count('"')
        if quotes % 2 == 0:
            yield _fields("".join(pending))
            pending, quotes = [], 0
    if pending:
        raise Damaged("the file ends within quotes")


def _fields(record: str) -> Row:
    if not record.endswith(_END):
        raise Damaged("the file ends within a line")
    text = record.removesuffix(_END)
    fields: list[str | None] = []
    place = 0
    while found := _FIELD.match(text, place):
        quoted, plain, separator = found.groups()
        fields.append(quoted.replace('""', '"') if quoted is not None else plain or None)
        place = found.end()
        if not separator:
            if place != len(text):
                break
            return tuple(fields)
    raise Damaged(f"cannot read the line {text[:60]!r}")
