"""Compression of text files, such that the same text becomes the same bytes."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO, TextIO, cast

from refold.sinks.kinds.files.options import Compression
from refold.sinks.receiver import Damaged

_LEVEL = 6
_BUFFER_BYTES = 1 << 16


class Packing:
    """Writes and reads a file with a compression.

    Args:
        compression: `gzip` or `none`.
    """

    def __init__(self, compression: Compression) -> None:
        self._is_gzip = compression == "gzip"
        self.ending = ".gz" if self._is_gzip else ""

    @contextmanager
    def writer(self, file: BinaryIO) -> Iterator[TextIO]:
        """Yield a stream whose text arrives in the file, which stays open."""
        with ExitStack() as stack:
            packed: io.BufferedIOBase
            if self._is_gzip:
                # A name or a time in the header would make other bytes of the same rows.
                packed = stack.enter_context(gzip.GzipFile("", "wb", _LEVEL, file, mtime=0))
            else:
                packed = stack.enter_context(io.BufferedWriter(_Borrowed(file), _BUFFER_BYTES))
            yield stack.enter_context(io.TextIOWrapper(cast(BinaryIO, packed), "utf-8", newline=""))

    @contextmanager
    def reader(self, file: BinaryIO) -> Iterator[TextIO]:
        """Yield a stream of the file's text, whose lines end with a line feed and keep it; the file stays open.

        Raises:
            Damaged: what is read is not gzip, or not UTF-8.
        """
        with ExitStack() as stack:
            packed = stack.enter_context(gzip.GzipFile(fileobj=file, mode="rb")) if self._is_gzip else file
            text = io.TextIOWrapper(cast(BinaryIO, packed), "utf-8", newline="\n")
            stack.callback(text.detach)
            try:
                yield text
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
