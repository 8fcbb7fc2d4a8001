"""JSON lines: the JSON of each row, on a line of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from refold.sinks.kinds.files.column_kinds import ColumnKind, kind_of
from refold.sinks.kinds.files.file_format import Row, refused
from refold.sinks.kinds.files.json_text import members, plain_members, postgres_text
from refold.sinks.kinds.files.packing import Packing
from refold.sinks.receiver import Change, Column, Damaged

_PLAIN = frozenset(
    """
    smallint integer bigint numeric real boolean date text uuid bytea interval time inet cidr
    """.split()  # noqa: SIM905
) | {"double precision", "character varying", "timestamp without time zone", "timestamp with time zone"}
"""Types whose JSON tells the text. Of any other, such as a composite type, each value is looked at."""


class Jsonl:
    """The format.

    Args:
        columns: the columns of the rows.
        packing: the compression.
    """

    def __init__(self, columns: Sequence[Column], packing: Packing) -> None:
        self._kinds = {column.name: kind_of(column.type) for column in columns}
        self._doubtful = tuple(
            (place, name, kind)
            for place, (name, kind) in enumerate(self._kinds.items())
            if kind.is_array or kind.name not in _PLAIN
        )
        self._packing = packing
        self.ending = ".jsonl" + packing.ending

    def write(self, file: BinaryIO, rows: Iterable[Change]) -> None:
        with self._packing.writer(file) as text:
            for change in rows:
                if self._doubtful:
                    self._check(change)
                # A line break can only be white space of a `json` column: within texts it is escaped.
                text.write(change.json.replace("\r", " ").replace("\n", " ") + "\n")

    def read(self, file: BinaryIO) -> Iterator[Row]:
        with self._packing.reader(file) as text:
            for line in text:
                if not line.endswith("\n"):
                    raise Damaged("the file ends within a line")
                try:
                    row = self._row(line)
                except ValueError as error:
                    raise Damaged(f"cannot read the line {line[:60]!r}: {error}") from None
                yield row

    def _row(self, line: str) -> Row:
        if not self._doubtful:
            texts = plain_members(line, self._kinds)
            return tuple(texts[name] for name in self._kinds)
        found = members(line)
        if found.keys() != self._kinds.keys():
            raise ValueError(f"it has the members {', '.join(found)}")
        return tuple(postgres_text(found[name], kind) for name, kind in self._kinds.items())

    def _check(self, change: Change) -> None:
        assert change.values is not None
        found: dict[str, str] | None = None
        for place, name, kind in self._doubtful:
            value = change.values[place]
            if value is None or (kind.is_json and value.strip() != "null"):
                continue
            if kind.is_json:
                raise refused(
                    change, name, value, "which JSON lines cannot tell from NULL",
                    f"Write NULLIF({name}, 'null'), or choose the format parquet or csv.",
                )  # fmt: skip
            found = members(change.json) if found is None else found
            if not _tells(found.get(name, "null"), kind, value):
                raise refused(
                    change, name, value, "and its JSON no longer tells this text",
                    f"Write {name}::text, or choose the format parquet or csv.",
                )  # fmt: skip


def _tells(raw: str, kind: ColumnKind, value: str) -> bool:
    try:
        return postgres_text(raw, kind) == value
    except ValueError:
        return False
