"""Compressed files: gzip, zlib (for which Python has no file object) and zstd."""

import gzip
import importlib
import io
import re
import zlib
from types import ModuleType
from typing import Any, Protocol, cast

from refold.errors import InputError


def _zstd() -> ModuleType | None:
    """Return the module that reads zstd: Python 3.14 has it, and earlier ones with backports.zstd."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


_ZSTD_MODULE = _zstd()
_ZSTD_ERRORS: tuple[type[Exception], ...] = () if _ZSTD_MODULE is None else (_ZSTD_MODULE.ZstdError,)

DAMAGED: tuple[type[Exception], ...] = (EOFError, zlib.error, gzip.BadGzipFile, *_ZSTD_ERRORS)
"""Errors for compressed data that end early or are damaged."""

_GZIP = b"\x1f\x8b"
_ZLIB = re.compile(rb"x[\x01\x5e\x9c\xda]", re.DOTALL).match
# A frame, or one to be left out, with which parallel compressors begin.
_ZSTD = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL).match
_SUFFIXES = (".gz", ".gzip", ".zlib", ".zz", ".zst", ".zstd")


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def packing(head: bytes) -> str | None:
    """Return how data with these first bytes are compressed: `gzip`, `zlib`, `zstd`, or None.

    The first two bytes of zlib may also be text that begins with an x: then the rest is text too.
    """
    if head.startswith(_GZIP):
        return "gzip"
    if _ZLIB(head) and not _is_text(head):
        return "zlib"
    if _ZSTD(head):
        return "zstd"
    return None


def opened_zstd(file: "_Readable", label: str) -> io.BufferedReader:
    """Return a reader of zstd data in bounded memory; it raises one of `DAMAGED` if they end early or are damaged.

    Args:
        file: the compressed data.
        label: what to call the file in an error.

    Raises:
        InputError: no module that reads zstd is installed.
    """
    if _ZSTD_MODULE is None:
        raise InputError(
            f"{label} is compressed with zstd, which Python reads since 3.14",
            remedy="Run `pip install 'refold[zstd]'`, or decompress it: zstd -dc FILE | refold ingest --format csv -",
        )
    return io.BufferedReader(cast(Any, _ZSTD_MODULE.ZstdFile(file, "rb")), 1 << 16)


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
