"""Compressed files: gzip, and zlib, for which Python has no file object."""

import gzip
import io
import re
import zlib
from typing import Protocol

DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)
"""Errors for compressed data that end early or are damaged."""

_GZIP = b"\x1f\x8b"
_ZLIB = re.compile(rb"x[\x01\x5e\x9c\xda]", re.DOTALL).match
_SUFFIXES = (".gz", ".gzip", ".zlib", ".zz")


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def packing(head: bytes) -> str | None:
    """Return how data with these first bytes are compressed: `gzip`, `zlib`, or None.

    The first two bytes of zlib may also be text that begins with an x: then the rest is text too.
    """
    if head.startswith(_GZIP):
        return "gzip"
    if _ZLIB(head) and not _is_text(head):
        return "zlib"
    return None


def unpacked_name(name: str) -> str:
    """Return a file's name without extensions of compression, in either case and repeatedly."""
    while name.lower().endswith(_SUFFIXES):
        name = name[: name.rindex(".")]
    return name


class Inflated(io.RawIOBase):
    """A reader of zlib data in bounded memory.

    It raises EOFError if they end early, and zlib.error if they are damaged or followed by other data.
    """

    def __init__(self, file: _Readable) -> None:
        self._file = file
        self._inflate = zlib.decompressobj()
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        data = b""
        while not data and not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._file.read(1 << 16)
            if not packed:
                raise EOFError
            data = self._inflate.decompress(packed, len(buffer))
        if not data and (self._inflate.unused_data or self._file.read(1)):
            raise zlib.error("something follows the data")
        buffer[: len(data)] = data
        return len(data)


def _is_text(head: bytes) -> bool:
    """Return whether bytes may be the beginning of UTF-8 text."""
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        # The last character may have been cut.
        if error.reason != "unexpected end of data":
            return False
        text = head[: error.start].decode()
    return "\x01" not in text
