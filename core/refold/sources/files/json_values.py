"""Division of JSON text into its records, without reading what they hold: in bounded memory, and at any line break."""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from refold.sources.files.lines import KEPT_BYTES, MAX_LINE_BYTES

_BETWEEN = re.compile(rb"[ \t\r\n,]*+").match
_STRING = rb'[^"\\]*+(?:\\.[^"\\]*+)*+'
_PLAIN = re.compile(rb'(?:[^"{}\[\]]++|"' + _STRING + rb'")*+', re.DOTALL).match
"""Everything up to the next bracket, or up to a string that the buffer holds only in part."""
_STRING_REST = re.compile(_STRING, re.DOTALL).match
_SCALAR = re.compile(rb'[^ \t\r\n,\[\]{}"]++').match


class Value(NamedTuple):
    """One record: an object, or what stands in its place."""

    line: int
    """Line on which it begins."""
    data: bytes
    """Its bytes; of a record that is too long, only the first."""
    size: int
    """Number of all its bytes."""


class Unclosed(Exception):
    """The text ends within a record or an array.

    Args:
        line: line on which that begins.
        data: its bytes so far.
    """

    def __init__(self, line: int, data: bytes) -> None:
        super().__init__(line)
        self.line = line
        self.data = data


def values(piece: Callable[[], bytes], line: int) -> Iterator[Value]:
    """Yield the records of JSON text: the elements of its outermost arrays, and the values outside of arrays.

    Commas and white space separate them and are not checked.

    Args:
        piece: returns the next bytes, and nothing at the end.
        line: number of the first line.

    Raises:
        Unclosed: the text ends within a record or an array; the records before that are delivered first.
    """
    text = _Text(piece, line)
    array: int | None = None
    while True:
        begin = text.separated()
        if not begin:
            if array is not None:
                raise Unclosed(array, b"")
            return
        if begin == b"[" and array is None:
            array = text.line
            text.position += 1
        elif begin == b"]" and array is not None:
            array = None
            text.position += 1
        else:
            yield text.record()


class _Text:
    """The part of the text that is in memory, and the place up to which it was divided."""

    def __init__(self, piece: Callable[[], bytes], line: int) -> None:
        self._piece = piece
        self._buffer = b""
        self.position = 0
        self.line = line

    def separated(self) -> bytes:
        """Go over separators; return the first byte behind them, or nothing at the end of the text."""
        while True:
            match = _BETWEEN(self._buffer, self.position)
            end = match.end() if match else self.position
            self.line += self._buffer.count(b"\n", self.position, end)
            self.position = end
            if end < len(self._buffer):
                return self._buffer[end : end + 1]
            self._buffer, self.position = self._piece(), 0
            if not self._buffer:
                return b""

    def record(self) -> Value:
        """Go over one record, and return it."""
        line = self.line
        start = place = self.position
        dropped, kept, depth, in_string = 0, b"", 0, False
        while True:
            buffer = self._buffer
            if in_string:
                match = _STRING_REST(buffer, place)
            elif depth:
                match = _PLAIN(buffer, place)
            else:
                match = _SCALAR(buffer, place)
            place = match.end() if match else place
            here = buffer[place : place + 1]
            if in_string and here == b'"':
                place, in_string = place + 1, False
                if not depth:
                    break
            elif not in_string and here == b'"' and (depth or place == start):
                place, in_string = place + 1, True
            elif not in_string and here in (b"{", b"[") and (depth or place == start):
                place, depth = place + 1, depth + 1
            elif not in_string and here in (b"}", b"]") and (depth or place == start):
                place, depth = place + 1, depth - 1
                if depth <= 0:
                    break
            elif here and not depth and not in_string:
                break
            else:
                if place - start > MAX_LINE_BYTES:
                    kept = kept or buffer[start : start + KEPT_BYTES]
                    self.line += buffer.count(b"\n", start, place)
                    dropped, start = dropped + place - start, place
                more = self._piece()
                if not more:
                    if depth or in_string:
                        raise Unclosed(line, kept or buffer[start:])
                    break
                self._buffer = buffer[start:] + more
                start, place = 0, place - start
        data = self._buffer[start:place]
        self.line += data.count(b"\n")
        self.position = place
        size = dropped + len(data)
        if size > MAX_LINE_BYTES:
            data = kept or data[:KEPT_BYTES]
        return Value(line, data, size)
