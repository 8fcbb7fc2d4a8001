"""Lines come out of any file whole, one by one and in bounded memory, or with an error that says why not."""

import gzip
import io
import os
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from refold.errors import InputError
from refold.sources.files import lines
from refold.sources.files.lines import KEPT_BYTES, MAX_LINE_BYTES, LineReader


def read(data: bytes) -> list[tuple[int, str, str | None]]:
    with LineReader("-", stdin=io.BytesIO(data)) as reader:
        return [(line.number, line.text, line.error) for line in reader]


def twice(data: bytes) -> bytes:
    return gzip.compress(gzip.compress(data))


def both(data: bytes) -> bytes:
    return gzip.compress(zlib.compress(gzip.compress(data)))


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zlib.compress, twice, both])
def test_lines_and_their_numbers(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    data = pack("\ufeffä\n\nb\r\nlast".encode())
    expected = [(1, "ä\n", None), (2, "\n", None), (3, "b\r\n", None), (4, "last", None)]
    assert read(data) == expected
    path = tmp_path / "x"
    path.write_bytes(data)
    with LineReader(path) as reader:
        assert [(line.number, line.text, line.error) for line in reader] == expected
        assert reader.bytes_read == reader.total_bytes == len(data)


def test_empty() -> None:
    assert read(b"") == []
    assert read(gzip.compress(b"")) == []


@pytest.mark.parametrize("level", [-1, 0, 1, 9])
def test_zlib_at_any_level(level: int) -> None:
    assert read(zlib.compress(b"", level)) == []
    [(_, text, _)] = read(zlib.compress(b"x" * 1_000_000, level))
    assert text == "x" * 1_000_000


@pytest.mark.parametrize("text", ["x^2,y\n", "x", "x^", "x\u06ad,\u06ad\u06ad\n"])
def test_text_that_begins_like_zlib(text: str) -> None:
    assert [found for _, found, _ in read(text.encode())] == [text]


def test_a_file_that_is_packed_without_end() -> None:
    data = b"a\n"
    for _ in range(5):
        data = gzip.compress(data)
    with pytest.raises(InputError, match="standard input is compressed more than 4 times"):
        read(data)


def test_gzip_of_several_members() -> None:
    assert [text for _, text, _ in read(gzip.compress(b"a\n") + gzip.compress(b"b\n"))] == ["a\n", "b\n"]


def test_gzip_is_seen_on_a_slow_pipe() -> None:
    """The first read of a pipe may bring a single byte."""
    data = gzip.compress(b"a\nb\n")

    class Slow(io.BytesIO):
        def read1(self, size: int | None = -1, /) -> bytes:
            return super().read1(1)

    with LineReader("-", stdin=Slow(data)) as reader:
        assert [line.text for line in reader] == ["a\n", "b\n"]
        assert reader.total_bytes is None


def test_lines_of_a_pipe_come_as_they_are_written() -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as pipe, os.fdopen(write_end, "wb", buffering=0) as writer:
        writer.write(b"first line\nsecond")
        with LineReader("-", stdin=pipe) as reader:
            assert next(reader).text == "first line\n"
            writer.write(b" line\n")
            assert next(reader).text == "second line\n"


@pytest.mark.parametrize(
    ("data", "text", "error"),
    [
        (b"a\xe4b\n", "a\\xe4b\n", "is not UTF-8 (byte 2 is 0xe4)"),
        (b"\xed\xa0\x80\n", "\\xed\\xa0\\x80\n", "is not UTF-8"),
        (b"a\0b\n", "a\\x00b\n", "contains a NUL byte"),
    ],
)
def test_bytes_that_are_no_text_spoil_one_line(data: bytes, text: str, error: str) -> None:
    good, bad, after = read(b"x\n" + data + b"y\n")
    assert (good, after) == ((1, "x\n", None), (3, "y\n", None))
    assert bad[1] == text
    assert error in str(bad[2])


def test_a_line_that_is_too_long_spoils_one_line() -> None:
    longest = b"x" * MAX_LINE_BYTES
    assert [error for _, _, error in read(longest + b"\n")] == [None]
    (number, text, error), after = read(longest + b"x\r\n" + b"after\n")
    assert (number, len(text)) == (1, KEPT_BYTES)
    assert f"has {MAX_LINE_BYTES + 3} bytes, more than {MAX_LINE_BYTES}; only the first {KEPT_BYTES}" in str(error)
    assert after == (2, "after\n", None)


def test_memory_does_not_grow_with_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 1 << 20)
    path = tmp_path / "x.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(64):
            file.write(b"x" * (1 << 20))
        file.write(b"\nafter\n")
    (tmp_path / "z").write_bytes(zlib.compress(gzip.decompress(path.read_bytes())))
    tracemalloc.start()
    try:
        with LineReader(path) as reader:
            assert [line.cut for line in reader] == [True, False]
        with LineReader(tmp_path / "z") as reader:
            assert [line.cut for line in reader] == [True, False]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def damaged(data: bytes) -> bytes:
    middle = len(data) - (6 if data[0] == 31 else 2)  # in the checksum
    return data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
@pytest.mark.parametrize("hurt", [lambda data: data[:-400], damaged, lambda data: data + b"garbage"])
def test_packed_data_that_break_off(hurt: Callable[[bytes], bytes], pack: Callable[[bytes], bytes]) -> None:
    packed = hurt(pack(b"".join(b"line %d\n" % n for n in range(1000))))
    seen = []
    with LineReader("-", stdin=io.BytesIO(packed)) as reader, pytest.raises(InputError) as caught:
        for line in reader:
            seen.append(line.text)
    assert 100 < len(seen) <= 1000
    assert seen == [f"line {n}\n" for n in range(len(seen))]
    kind = "gzip" if pack is gzip.compress else "zlib"
    assert f"standard input: the {kind} data end early or are damaged after line {len(seen)}" == str(caught.value)


@pytest.mark.parametrize("packed", [bytes, gzip.compress, twice])
@pytest.mark.parametrize(
    ("data", "what"),
    [
        ("id\n".encode("utf-16"), "UTF-16"),
        (b"PK\x03\x04rest", "zip"),
        (b"BZh91AY&SY", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"PAR1\x15\x04", "Parquet"),
        (b"\x1f\x9d\x90", "compress"),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"7z\xbc\xaf\x27", "7z"),
        (b"\xd0\xcf\x11\xe0\xa1", "Office"),
    ],
)
def test_other_kinds_of_files_are_named(data: bytes, what: str, packed: Callable[[bytes], bytes]) -> None:
    verb = "is" if packed is bytes else "holds"
    with pytest.raises(InputError, match=f"standard input {verb} .*{what}") as caught:
        read(packed(data))
    assert caught.value.remedy


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot open .*/none: No such file or directory"):
        LineReader(tmp_path / "none")
    with pytest.raises(InputError, match="Is a directory"):
        LineReader(tmp_path)


def test_closes_its_file_but_not_standard_input(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * 100)
    with LineReader(tmp_path / "x") as reader:
        pass
    with pytest.raises(ValueError, match="closed"):
        next(reader)
    stdin = io.BytesIO(b"a\n")
    with LineReader("-", stdin=stdin):
        pass
    assert not stdin.closed
