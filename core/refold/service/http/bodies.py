"""Bodies of requests: decompressed piece by piece within limits, and cut into lines."""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections.abc import AsyncIterator
from typing import Protocol

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor, ZstdError
else:
    from backports.zstd import ZstdDecompressor, ZstdError

from starlette.requests import ClientDisconnect, Request

from refold.service.http.problems import Problem

PIECE = 256 * 2**10
"""Most bytes that are decompressed at a time."""
BUFFERED = 16 * 2**20
"""Most bytes, decompressed, of a body that is read as a whole."""
LINE = 2**20 + 64 * 2**10
"""Most bytes of a line: the largest metadata, and the other fields."""
RATIO, RATIO_FROM = 200, 2**20
"""Most that a body may grow by decompression, from so many bytes on."""
ENCODINGS = ("gzip", "deflate", "zstd")


class _Decompressor(Protocol):
    def feed(self, data: bytes) -> bytes:
        """Return at most PIECE bytes; further ones come with further calls, and no data."""

    @property
    def pending(self) -> bool:
        """Return whether a call without data gives more."""

    @property
    def complete(self) -> bool:
        """Return whether the data may end here."""


class _Zlib:
    """gzip (of several members, too), and deflate with or without its header."""

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._inner = zlib.decompressobj(31 if gzip else 15)
        self._rest = b""
        self._begun = False

    def feed(self, data: bytes) -> bytes:
        data = self._rest + data
        if not self._begun and data:
            self._begun = True
            if not self._gzip and (data[0] & 0x0F) != 8:
                self._inner = zlib.decompressobj(-15)
        if self._inner.eof and data:
            self._inner = zlib.decompressobj(31 if self._gzip else 15)
        out = self._inner.decompress(data, PIECE)
        self._rest = self._inner.unconsumed_tail or self._inner.unused_data
        return out

    @property
    def pending(self) -> bool:
        return bool(self._rest)

    @property
    def complete(self) -> bool:
        return self._inner.eof and not self._rest


class _Zstd:
    """zstd, of several frames, too."""

    def __init__(self) -> None:
        self._inner = ZstdDecompressor()
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        data = self._rest + data
        self._rest = b""
        if self._inner.eof:
            if not data:
                return b""
            self._inner = ZstdDecompressor()
        out = self._inner.decompress(data, PIECE)
        if self._inner.eof:
            self._rest = self._inner.unused_data
        return out

    @property
    def pending(self) -> bool:
        return bool(self._rest) if self._inner.eof else not self._inner.needs_input

    @property
    def complete(self) -> bool:
        return self._inner.eof and not self._rest


async def pieces(request: Request) -> AsyncIterator[bytes]:
    """Yield the body decompressed, in pieces of bounded size.

    Raises:
        Problem: 413 grows too much, 415 unknown encoding, 400 cannot be decompressed.
        ClientDisconnect: the client has gone before its end.
    """
    decompressor = _decompressor(request.headers.get("content-encoding", "identity"))
    received = produced = 0
    async for chunk in request.stream():
        received += len(chunk)
        if decompressor is None:
            yield chunk
            continue
        data = chunk
        while data or decompressor.pending:
            try:
                piece = decompressor.feed(data)
            except (zlib.error, ZstdError) as error:
                raise Problem(400, f"the body cannot be decompressed: {error}") from None
            data = b""
            produced += len(piece)
            if produced > RATIO_FROM and produced > RATIO * received:
                raise Problem(413, f"the body grows to more than {RATIO} times its size by decompression")
            if piece:
                yield piece
                await asyncio.sleep(0)
            elif not decompressor.pending:
                break
    if decompressor is not None and received and not decompressor.complete:
        raise Problem(400, "the compressed body ends too early")


async def whole(request: Request, most: int = BUFFERED) -> bytes:
    """Return the whole body, decompressed.

    Args:
        request: whose body it is.
        most: bytes, decompressed, that it may have.

    Raises:
        Problem: as `pieces`, and 413 it is too large.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most:
        raise _too_large(most)
    body = bytearray()
    async for piece in pieces(request):
        body += piece
        if len(body) > most:
            raise _too_large(most)
    return bytes(body)


async def lines(request: Request) -> AsyncIterator[tuple[int, bytes | None]]:
    """Yield the lines of a body with their numbers, from 1, without empty ones; None for one that is too long."""
    number = 0
    rest = bytearray()
    dropping = False
    async for piece in pieces(request):
        start = 0
        while (end := piece.find(b"\n", start)) >= 0:
            rest += piece[start:end]
            start = end + 1
            number += 1
            if dropping or len(rest) > LINE:
                yield number, None
            elif line := bytes(rest).strip():
                yield number, line
            rest.clear()
            dropping = False
        rest += piece[start:]
        if len(rest) > LINE:
            dropping = True
            rest.clear()
    if dropping:
        yield number + 1, None
    elif line := bytes(rest).strip():
        yield number + 1, line


def _too_large(most: int) -> Problem:
    return Problem(413, f"the body has more than {most} bytes; send less at a time, or lines of JSON (NDJSON)")


def _decompressor(encoding: str) -> _Decompressor | None:
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip":
            return _Zlib(gzip=True)
        case "deflate":
            return _Zlib(gzip=False)
        case "zstd":
            return _Zstd()
        case other:
            raise Problem(
                415,
                f"the content encoding {other[:40]!r} is not known; known are {', '.join(ENCODINGS)}",
                {"Accept-Encoding": ", ".join(ENCODINGS)},
            )


__all__ = ["BUFFERED", "ENCODINGS", "ClientDisconnect", "lines", "pieces", "whole"]
