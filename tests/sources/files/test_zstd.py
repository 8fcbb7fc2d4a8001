"""Files that zstd packed are read as others are, or refused with what is missing."""

import gzip
import importlib
import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from refold.errors import InputError
from refold.sources.files import packing
from refold.sources.files.lines import LineReader
from refold.sources.files.readers import open_source

zstd = packing._ZSTD_MODULE
if zstd is None:
    pytest.skip("no module reads zstd", allow_module_level=True)
compress: Callable[[bytes], bytes] = zstd.compress
TEXT = "".join(f"line {n} ä\n" for n in range(20_000))


def read(data: bytes) -> str:
    with LineReader("-", stdin=io.BytesIO(data)) as reader:
        return "".join(line.text for line in reader)


@pytest.mark.parametrize(
    "pack",
    [
        compress,
        lambda data: compress(data[:9000]) + compress(data[9000:]),
        lambda data: b"\x50\x2a\x4d\x18\x04\0\0\0left" + compress(data),
        lambda data: gzip.compress(compress(data)),
        lambda data: compress(gzip.compress(data)),
    ],
    ids=["one", "frames", "skippable", "in gzip", "of gzip"],
)
def test_zstd_is_recognised_by_content(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    data = pack(TEXT.encode())
    assert read(data) == TEXT
    (tmp_path / "x").write_bytes(data)
    with LineReader(tmp_path / "x") as reader:
        assert sum(1 for _ in reader) == 20_000
        assert reader.bytes_read == reader.total_bytes == len(data)


def test_the_name_is_that_of_the_unpacked_file(tmp_path: Path) -> None:
    for name in ("x.csv.zst", "x.csv.ZSTD", "x.csv.gz"):
        (tmp_path / name).write_bytes(compress(b"a,b\n1,2\n"))
        with open_source(tmp_path / name) as source:
            assert source.name == "x.csv"
            assert next(iter(source)).fields == {"a": "1", "b": "2"}


@pytest.mark.parametrize("hurt", [lambda d: d[:-400], lambda d: d[:-2], lambda d: d + b"garbage"])
def test_damaged_data_deliver_what_came_before(hurt: Callable[[bytes], bytes]) -> None:
    seen = []
    what = "the zstd data end early or are damaged after line"
    with (
        LineReader("-", stdin=io.BytesIO(hurt(compress(TEXT.encode())))) as reader,
        pytest.raises(InputError, match=what),
    ):
        for line in reader:
            seen.append(line.text)
    assert "".join(seen) == TEXT[: len("".join(seen))]


def test_a_head_without_data() -> None:
    with pytest.raises(InputError, match="the zstd data end early or are damaged after line 0"):
        read(b"\x28\xb5\x2f\xfd\0")


@pytest.mark.exhaustive
def test_memory_stays_bounded() -> None:
    data = compress(b"x" * 99 + b"\n") * 1 + compress((b"x" * 99 + b"\n") * 1_000_000)
    tracemalloc.start()
    try:
        with LineReader("-", stdin=io.BytesIO(data)) as reader:
            assert sum(1 for _ in reader) == 1_000_001
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_without_a_module_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, package: str | None = None) -> object:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert packing._zstd() is None
    monkeypatch.setattr(packing, "_ZSTD_MODULE", packing._zstd())
    with pytest.raises(InputError, match="standard input is compressed with zstd") as caught:
        read(compress(b"a\n"))
    assert "pip install 'refold[zstd]'" in str(caught.value.remedy)
