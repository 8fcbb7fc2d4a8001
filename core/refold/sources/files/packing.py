"""Packed files: gzip, and zlib, for which Python has no file object."""

import gzip
import io
import re
import zlib
from typing import Protocol

DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)
"""What is raised where packed data break off or are damaged."""

_GZIP = b"\x1f\x8b"
_ZLIB = re.compile(rb"x[\x01\x5e\x9c\xda]", re.DOTALL).match
_SUFFIXES = (".gz", ".gzip", ".zlib", ".zz")


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def packing(head: bytes) -> str | None:
    """How data are packed that begin so: `gzip`, `zlib`, or not at all.

    The first two bytes of zlib may also be text that begins with an x: then the rest is text too.
    """
    if head.startswith(_GZIP):
        return "gzip"
    if _ZLIB(head) and not _is_text(head):
        return "zlib"
    return None


def unpacked_name(name: str) -> str:
    """The name of a file as it is when it is unpacked; the extension in either case, and as often as it is there."""
    while name.lower().endswith(_SUFFIXES):
        name = name[: name.rindex(".")]
    return name


class Inflated(io.RawIOBase):
    """What zlib data hold, in bounded memory.

    Raises EOFError where they break off, and zlib.error where they are damaged or something follows them.
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
    """Whether bytes may be UTF-8 text, as far as they go."""
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        # The last character may have been cut.
        if error.reason != "unexpected end of data":
            return False
        text = head[: error.start].decode()
    return "\x01" not in text
