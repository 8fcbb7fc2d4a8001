"""Parquet files, read in batches: each row is a record, and null is absent."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from refold.errors import InputError
from refold.model.event.exact_json import metadata_json
from refold.sources.files.arrow_values import Unreadable, check_type, values_of
from refold.sources.files.records import Record, Source

MAGIC = b"PAR1"
_ROWS = 1000
"""Rows in memory at once, apart from the pages of the file that hold them."""
_PAGE_BYTES = 1 << 20
"""Bytes to read ahead of a column: without a limit, a whole column of a row group is read."""


def is_parquet(path: str | Path) -> bool:
    """Return whether a path is a file that begins and ends as Parquet does, so that no text can be meant."""
    if not Path(path).is_file():
        return False
    try:
        with open(path, "rb") as file:
            if file.read(4) != MAGIC or file.seek(0, 2) < 12:
                return False
            file.seek(-4, 2)
            return file.read(4) == MAGIC
    except OSError:
        return False  # whoever opens it says why


class Parquet(Source):
    """A source with the rows of a Parquet file; the number of a row stands for its line.

    Args:
        path: the file, uncompressed as a whole.
        name: name of the source.

    Raises:
        InputError: pyarrow is missing, or the file is damaged or has a column that refold cannot read.
    """

    columns: tuple[str, ...]
    absent = None

    def __init__(self, path: str | Path, name: str) -> None:
        self.name = name
        self._path = str(path)
        self._size = Path(path).stat().st_size
        self._rows = 0
        self._pyarrow = _pyarrow(self._path)
        try:
            self._file = importlib.import_module("pyarrow.parquet").ParquetFile(
                self._path, buffer_size=_PAGE_BYTES, pre_buffer=False
            )
            schema = self._file.schema_arrow
        except (OSError, self._pyarrow.ArrowException) as error:
            raise InputError(f"{self._path} is a damaged Parquet file: {_first_line(error)}") from None
        try:
            self.columns = tuple(schema.names)
            self._check(schema)
        except BaseException:
            self._file.close()
            raise

    @property
    def bytes_read(self) -> int:
        """Return the share of the file that was read, as bytes."""
        total = self._file.metadata.num_rows
        return self._size * self._rows // total if total else self._size

    @property
    def total_bytes(self) -> int | None:
        """Return the size of the file in bytes."""
        return self._size

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def pieces(self) -> Iterator[list[Record]]:
        try:
            for batch in self._file.iter_batches(batch_size=_ROWS, use_threads=False):
                yield from ([record] for record in self._records(batch))
        except (OSError, self._pyarrow.ArrowException) as error:
            raise InputError(
                f"{self._path} is damaged after row {self._rows}: {_first_line(error)}",
                remedy="Get the file again and repeat the command: no event is stored twice.",
            ) from None

    def _records(self, batch: Any) -> Iterator[Record]:
        try:
            columns = [values_of(column) for column in batch.columns]
        except (Unreadable, UnicodeDecodeError):
            if batch.num_rows > 1:
                for place in range(batch.num_rows):
                    yield from self._records(batch.slice(place, 1))
                return
            self._rows += 1
            yield Record(self._rows, self._rows, *self._unreadable(batch))
            return
        for values in zip(*columns, strict=True) if columns else ():
            self._rows += 1
            fields = dict(zip(self.columns, values, strict=True))
            yield Record(self._rows, self._rows, _as_json(fields), fields)

    def _unreadable(self, batch: Any) -> tuple[str, None, str]:
        """Return the text of a row with a value that cannot be read, no fields, and the reason."""
        fields: dict[str, object] = {}
        reason = ""
        for name, column in zip(self.columns, batch.columns, strict=True):
            try:
                fields[name] = values_of(column)[0]
            except UnicodeDecodeError:
                fields[name], reason = None, reason or f"the column {name!r} is not UTF-8"
            except Unreadable as error:
                fields[name], reason = None, reason or f"the column {name!r} {error}"
        return _as_json(fields), None, reason

    def _check(self, schema: Any) -> None:
        twice = next((name for name in self.columns if self.columns.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{self._path} has the column {twice!r} more than once", remedy="Rename one of them.")
        for field in schema:
            try:
                check_type(field.type)
            except Unreadable as error:
                raise InputError(
                    f"{self._path}: the column {field.name!r} {error}", remedy="Convert it to text, or leave it out."
                ) from None


def _as_json(fields: dict[str, object]) -> str:
    present = {name: value for name, value in fields.items() if value is not None}
    try:
        return metadata_json(present)
    except TypeError:
        return repr(present)  # NaN and infinity, which JSON lacks


def _pyarrow(path: str) -> Any:
    try:
        return importlib.import_module("pyarrow")
    except ImportError:
        raise InputError(
            f"{path} is a Parquet file, and pyarrow is not installed",
            remedy="Run `pip install 'refold[parquet]'`, or convert the file: "
            f"duckdb -c \"COPY (FROM '{path}') TO 'events.csv'\"",
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
