"""Parquet, written in row groups."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

from refold.sinks.kinds.files.column_kinds import kind_of
from refold.sinks.kinds.files.file_format import Row, refused
from refold.sinks.kinds.files.options import Compression
from refold.sinks.kinds.files.parquet_values import codec_of
from refold.sinks.receiver import Change, Column, Damaged, Misconfigured

_GROUP_ROWS = 100_000
_GROUP_CHARACTERS = 32 << 20
"""Characters of values in a row group. A group ends with the row that reaches either limit: memory holds one group."""
_READ_ROWS = 10_000
"""Rows in memory at once when a file is read."""


class Parquet:
    """The format.

    Args:
        columns: the columns of the rows.
        compression: the codec of its pages.

    Raises:
        Misconfigured: pyarrow is not installed.
    """

    ending = ".parquet"

    def __init__(self, columns: Sequence[Column], compression: Compression) -> None:
        try:
            self._pa = importlib.import_module("pyarrow")
            self._parquet = importlib.import_module("pyarrow.parquet")
        except ImportError:
            raise Misconfigured(
                "the format is parquet, and pyarrow is not installed",
                remedy="Run `pip install 'refold[parquet]'`, or choose the format csv or jsonl.",
            ) from None
        self._names = tuple(column.name for column in columns)
        self._codecs = tuple(codec_of(kind_of(column.type)) for column in columns)
        self._schema = self._pa.schema(
            [(name, codec.type) for name, codec in zip(self._names, self._codecs, strict=True)]
        )
        self._compression = compression

    def write(self, file: BinaryIO, rows: Iterable[Change]) -> None:
        with self._parquet.ParquetWriter(
            file, self._schema, compression=self._compression, store_schema=False, write_statistics=True
        ) as writer:
            for group in _groups(rows):
                columns = zip(*(change.values or () for change in group), strict=True)
                arrays = [self._array(place, texts, group) for place, texts in enumerate(columns)]
                writer.write_table(self._pa.Table.from_arrays(arrays, schema=self._schema), row_group_size=len(group))

    def read(self, file: BinaryIO) -> Iterator[Row]:
        try:
            with self._parquet.ParquetFile(file, pre_buffer=False) as opened:
                if not opened.schema_arrow.equals(self._schema):
                    raise Damaged("it has other columns")
                for batch in opened.iter_batches(_READ_ROWS, use_threads=False):
                    texts = [codec.decode(column) for codec, column in zip(self._codecs, batch.columns, strict=True)]
                    yield from zip(*texts, strict=True)
        except (OSError, self._pa.ArrowException) as error:
            if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
                raise  # of the file system; pyarrow's own have no number
            raise Damaged(f"cannot read it: {str(error).partition(chr(10))[0][:200]}") from None
        except (UnicodeDecodeError, OverflowError, ValueError) as error:
            raise Damaged(f"it holds values that were not delivered: {error}") from None

    def _array(self, place: int, texts: Sequence[str | None], group: Sequence[Change]) -> Any:
        codec = self._codecs[place]
        encode = codec.encode
        try:
            return self._pa.array([None if one is None else encode(one) for one in texts], codec.type)
        except (ValueError, ArithmeticError, self._pa.ArrowException):
            if len(group) == 1:
                assert texts[0] is not None
                raise refused(
                    group[0], self._names[place], texts[0], codec.limits,
                    "Change the projection so that it has no such value, or choose the format csv.",
                ) from None  # fmt: skip
        for change, text in zip(group, texts, strict=True):
            self._array(place, [text], [change])
        raise AssertionError("a group is refused, and none of its rows")


def _groups(rows: Iterable[Change]) -> Iterator[list[Change]]:
    group: list[Change] = []
    characters = 0
    for change in rows:
        # The texts are what counts: neither the key nor the JSON goes into the file.
        group.append(change._replace(json=""))
        characters += sum(len(one) for one in change.values or () if one is not None)
        if len(group) >= _GROUP_ROWS or characters >= _GROUP_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group
