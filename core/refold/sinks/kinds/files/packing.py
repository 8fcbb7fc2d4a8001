"""Compression of text files, such that the same text becomes the same bytes."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from refold.sinks.kinds.files.file_format import Damaged
from refold.sinks.kinds.files.options import Compression

_LEVEL = 6


class Packing:
    """Writes and reads a file with a compression.

    Args:
        compression: `gzip` or `none`.
    """

    def __init__(self, compression: Compression) -> None:
        self._is_gzip = compression == "gzip"
        self.ending = ".gz" if self._is_gzip else ""

    @contextmanager
    def writer(self, file: BinaryIO) -> Iterator[BinaryIO]:
        """Yield a stream whose bytes arrive in the file, which stays open."""
        if self._is_gzip:
            # A name or a time in the header would make other bytes of the same rows.
            with gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as packed:
                yield cast(BinaryIO, packed)
            return
        buffer = io.BufferedWriter(_Borrowed(file), 1 << 16)
        yield cast(BinaryIO, buffer)
        buffer.close()

    @contextmanager
    def reader(self, file: BinaryIO) -> Iterator[BinaryIO]:
        """Yield a stream of the unpacked bytes.

        Raises:
            Damaged: what is read is not gzip, or not UTF-8.
        """
        try:
            yield cast(BinaryIO, gzip.GzipFile(fileobj=file, mode="rb")) if self._is_gzip else file
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise Damaged(f"cannot unpack it: {error}") from None
        except UnicodeDecodeError:
            raise Damaged("it is not UTF-8") from None


class _Borrowed(io.RawIOBase):
    """A file that stays open when the streams above it are closed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return self._file.write(cast(bytes, data))
