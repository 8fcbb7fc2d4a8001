"""Physical lines of a file or of standard input: decompressed, decoded, and in bounded memory."""

from __future__ import annotations

import gzip
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from refold.errors import InputError
from refold.sources.files.kinds import HEAD_BYTES, kind_of
from refold.sources.files.packing import DAMAGED, Inflated, opened_zstd, packing

Stream = io.BufferedReader | gzip.GzipFile

MAX_LINE_BYTES = 16 * 1024 * 1024
"""A longer line gets an error and is cut to KEPT_BYTES; the next lines are read as usual."""

KEPT_BYTES = 64 * 1024

_PIECE_BYTES = 64 * 1024
FAILED: tuple[type[Exception], ...] = (*DAMAGED, OSError)
"""Errors that end the reading of a file."""
_BOM = b"\xef\xbb\xbf"
_MAX_LAYERS = 4
"""Most layers of compression: some exports are compressed twice by mistake."""
_HEAD_AT_LEAST = 8
"""Bytes of the beginning to wait for; most binary formats are recognised by them."""


class Line(NamedTuple):
    """One physical line; if `error` is set, `text` only approximates its bytes."""

    number: int
    """Counted from 1."""
    text: str
    """With its line end, if it has one."""
    error: str | None = None
    cut: bool = False
    """The line was too long: only its beginning is here."""


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines that follow one another, none with an error.

    Args:
        number: number of the first, from 1.
        texts: each line without the line feed that ends it; the last line of a file may have had none.
    """

    number: int
    texts: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Iterator[Line]:
        for number, text in enumerate(self.texts, self.number):
            yield Line(number, text + "\n")


class LineReader:
    """An iterator over the lines of a path, or of standard input for `-`; also a context manager.

    It raises InputError if the input cannot be opened, has another format, or ends early; the lines before that are
    delivered first.
    """

    total_bytes: int | None = None
    """Size of the file on disk; None if unknown (a pipe)."""

    def __init__(self, path: str | Path, *, stdin: BinaryIO | None = None) -> None:
        self.label = "standard input" if str(path) == "-" else str(path)
        self._owned: BinaryIO | None = None
        self._packing: str | None = None
        self._number = 0
        self._first = b""
        self._late: Exception | None = None
        if str(path) == "-":
            file = stdin if stdin is not None else sys.stdin.buffer
        else:
            file = self._owned = self._open(path)
        try:
            self._counted = _CountingReader(file)
            self._stream = self._unpacked(self._counted)
        except OSError as error:
            self.close()
            raise InputError(f"cannot read {self.label}: {error.strerror or error}") from None
        except BaseException:
            self.close()
            raise

    @property
    def bytes_read(self) -> int:
        """Return the bytes read from the file so far, compressed or not, including one buffer of read-ahead."""
        return self._counted.count

    def __enter__(self) -> LineReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Line]:
        return self

    def __next__(self) -> Line:
        if self._first or not self._number:
            data, self._first = self._first or self._next_bytes(), b""
        else:
            data = self._readline(MAX_LINE_BYTES + 1)
        if not data:
            raise StopIteration
        self._number += 1
        if len(data) > MAX_LINE_BYTES and not data.endswith(b"\n"):
            return self._too_long(data)
        return decode(self._number, data)

    def together(self) -> Lines | list[Line]:
        """Return the next lines, as many as are there without waiting for a pipe; nothing at the end of the file.

        An error is raised by the call that finds no line before it.
        """
        if self._late is not None:
            raise self._failure(self._late)
        if self._first or not self._number:
            line = next(self, None)
            if line is None or line.error:
                return [] if line is None else [line]
            return Lines(line.number, [line.text.removesuffix("\n")])
        data = self._whole_lines()
        end = data.rfind(b"\n") + 1
        # What has no line end is read by the next call: it is the last line, or too long.
        self._first = data[end:]
        if not end:
            return self.together() if data else []
        found = self._decoded(data[:end])
        self._number += len(found)
        return found

    def _whole_lines(self) -> bytes:
        """Return the next bytes up to the end of a line, which may be too long; nothing at the end of the file."""
        data = b""
        try:
            while len(data) < _PIECE_BYTES:
                more = self._stream.read1(_PIECE_BYTES)
                data += more
                if not more or self.total_bytes is None:
                    break
            if data and not data.endswith(b"\n"):
                data += self._stream.readline(MAX_LINE_BYTES + 1 - (len(data) - data.rfind(b"\n") - 1))
        except FAILED as error:
            data = data[: data.rfind(b"\n") + 1]
            if not data:
                raise self._failure(error) from None
            self._late = error
        return data

    def _decoded(self, data: bytes) -> Lines | list[Line]:
        """Return whole lines, which follow those that were read."""
        number = self._number + 1
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            return [decode(at, line + b"\n") for at, line in enumerate(data.split(b"\n")[:-1], number)]
        return Lines(number, text.split("\n")[:-1])

    def first(self) -> bytes:
        """Return the next line that is not blank, or its first `MAX_LINE_BYTES`; it is read again.

        Blank lines before it are gone. The result is empty at the end of the file.
        """
        while not self._first and (data := self._next_bytes()):
            if data.strip():
                self._first = data
            else:
                self._number += 1
        return self._first

    def skip(self, count: int) -> None:
        """Leave out lines, which count nevertheless.

        Args:
            count: number of lines; a file may have fewer.
        """
        for _ in range(count):
            if next(self, None) is None:
                return

    @property
    def number(self) -> int:
        """Return the number of lines that were read."""
        return self._number

    def piece(self) -> bytes:
        """Return the next bytes wherever lines end, as they come; nothing at the end of the file."""
        try:
            data, self._first = self._first or self._stream.read1(_PIECE_BYTES), b""
        except FAILED as error:
            raise self._failure(error) from None
        self._number += data.count(b"\n")
        return data

    def close(self) -> None:
        """Close the file; standard input stays open."""
        if self._owned is not None:
            self._owned.close()

    def _open(self, path: str | Path) -> BinaryIO:
        try:
            file = open(path, "rb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise InputError(f"cannot open {self.label}: {error.strerror}") from None
        size = file.seek(0, io.SEEK_END) if file.seekable() else 0
        if size:
            file.seek(0)
            self.total_bytes = size
        return file

    def _unpacked(self, counted: _CountingReader) -> Stream:
        """Return a stream of the decompressed text."""
        stream: Stream = io.BufferedReader(counted, 1 << 16)
        head = counted.head
        for _ in range(_MAX_LAYERS + 1):
            kind = kind_of(head)
            if kind is not None:
                verb = "holds" if self._packing else "is"
                raise InputError(f"{self.label} {verb} {kind.name}, not JSON lines or CSV", remedy=kind.remedy)
            found = packing(head)
            if found is None:
                return stream
            self._packing = found
            if found == "gzip":
                stream = gzip.GzipFile(fileobj=stream, mode="rb")
            elif found == "zlib":
                stream = io.BufferedReader(Inflated(stream))
            else:
                stream = opened_zstd(stream, self.label)
            try:
                head = stream.peek(HEAD_BYTES)[:HEAD_BYTES]
            except DAMAGED as error:
                raise self._failure(error) from None
        raise InputError(f"{self.label} is compressed more than {_MAX_LAYERS} times", remedy="Decompress it first.")

    def _failure(self, error: Exception) -> InputError:
        """Return the error for input that cannot be read any further."""
        if isinstance(error, DAMAGED):
            return InputError(
                f"{self.label}: the {self._packing} data end early or are damaged after line {self._number}",
                remedy="Get the file again and repeat the command: no event is stored twice.",
            )
        reason = getattr(error, "strerror", None) or error
        return InputError(f"cannot read {self.label} after line {self._number}: {reason}")

    def _next_bytes(self) -> bytes:
        data = self._readline(MAX_LINE_BYTES + 1)
        return data if self._number else data.removeprefix(_BOM)

    def _readline(self, limit: int) -> bytes:
        try:
            return self._stream.readline(limit)
        except FAILED as error:
            raise self._failure(error) from None

    def _too_long(self, data: bytes) -> Line:
        size = len(data)
        while rest := self._readline(1 << 16):
            size += len(rest)
            if rest.endswith(b"\n"):
                break
        error = f"has {size} bytes, more than {MAX_LINE_BYTES}; only the first {KEPT_BYTES} are kept"
        return decode(self._number, data[:KEPT_BYTES])._replace(error=error, cut=True)


class _CountingReader(io.RawIOBase):
    """A reader that counts bytes, and that knows the first bytes before they are read."""

    def __init__(self, file: BinaryIO) -> None:
        # read1 of a buffered stream returns what is there: a slow pipe is read as it comes.
        self._read = getattr(file, "read1", file.read)
        self.count = 0
        self.head = b""
        # A slow pipe may not have more for a long time.
        while len(self.head) < _HEAD_AT_LEAST and (data := self._read(HEAD_BYTES - len(self.head))):
            self.head += data
        self._waiting = self.head

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        data = self._waiting[: len(buffer)] or self._read(len(buffer))
        self._waiting = self._waiting[len(buffer) :]
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)


def decode(number: int, data: bytes) -> Line:
    """Return bytes as a line; what is no text is replaced, and is its error.

    Args:
        number: number of the line.
        data: its bytes.
    """
    error = None
    try:
        text = data.decode()
    except UnicodeDecodeError as bad:
        text = data.decode(errors="backslashreplace")
        error = f"is not UTF-8 (byte {bad.start + 1} is 0x{data[bad.start]:02x}): convert the file with iconv"
    if "\0" in text:
        text = text.replace("\0", "\\x00")
        error = error or "contains a NUL byte, which Postgres cannot store"
    return Line(number, text, error)
