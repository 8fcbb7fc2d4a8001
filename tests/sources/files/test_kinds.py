"""Files that hold no lines of events are named for what they are, by their first bytes."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from refold.errors import InputError
from refold.sources.files.kinds import kind_of
from refold.sources.files.readers import open_source

CSV = b"id,action,ts\n1,view,2026-03-01T10:00:00Z\n"


def tar(format: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        one = tarfile.TarInfo("events.csv")
        one.size = len(CSV)
        archive.addfile(one, io.BytesIO(CSV))
    return file.getvalue()


def tar_of_version_7() -> bytes:
    """Without the name that later ones have in their header; the sum is without it, too."""
    header = bytearray(tar(tarfile.USTAR_FORMAT)[:512])
    header[257:512] = bytes(255)
    header[148:156] = b"%06o\0 " % (sum(header) - sum(header[148:156]) + 8 * 32)
    return bytes(header) + CSV


def archive(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as found:
        for name in names:
            found.writestr(name, "application/vnd.oasis.opendocument.spreadsheet" if name == "mimetype" else CSV)
    return file.getvalue()


KINDS: dict[str, tuple[bytes, str, str]] = {
    "x.tar": (tar(tarfile.USTAR_FORMAT), "a tar archive", "tar -xf"),
    "x.tgz": (tar(tarfile.GNU_FORMAT), "a tar archive", "tar -xf"),
    "pax.csv": (tar(tarfile.PAX_FORMAT), "a tar archive", "tar -xf"),
    "v7.jsonl": (tar_of_version_7(), "a tar archive", "tar -xf"),
    "x.xlsx": (archive("[Content_Types].xml", "xl/workbook.xml"), "a spreadsheet (xlsx)", "Save each sheet as CSV"),
    "x.ods": (archive("mimetype", "content.xml"), "a spreadsheet (OpenDocument)", "Save each sheet as CSV"),
    "x.zip": (archive("events.csv"), "a zip archive", "unzip"),
    "empty.zip": (archive(), "a zip archive", "unzip"),
    "x.xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a spreadsheet (xls)", "Save each sheet as CSV"),
    "x.parquet": (
        b"PAR1\x15\x04\x15\x10",
        "a Parquet file that is compressed, cut or in a pipe",
        "refold ingest FILE.parquet",
    ),
    "x.feather": (b"ARROW1\0\0\xff\xff", "an Arrow (Feather) file", "Convert it to CSV"),
    "x.orc": (b"ORC\x1d\0\0\x0a", "an ORC file", "Convert it to CSV"),
    "x.avro": (b"Obj\x01\x04\x14avro", "an Avro file", "avro-tools tojson"),
    "x.db": (b"SQLite format 3\0\x10\0", "a SQLite database", "sqlite3 -header -csv"),
    "x.dump": (b"PGDMP\x01\x0f\0\x04", "a dump of PostgreSQL", "\\copy"),
    "x.pdf": (b"%PDF-1.7\n", "a PDF document", "CSV or JSON lines"),
    "login.csv": (b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "a web page (HTML)", "login"),
    "x.xml": (b'<?xml version="1.0"?>\n<events/>', "an XML document", "Convert it to CSV"),
    "x.7z": (b"7z\xbc\xaf\x27\x1c\0\x04", "a 7z archive", "7z x"),
    "x.rar": (b"Rar!\x1a\x07\x01\0", "a rar archive", "unrar x"),
    "x.csv.bz2": (b"BZh91AY&SY", "compressed with bzip2", "bzip2 -dc FILE | refold ingest --format csv -"),
}


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lambda data: gzip.compress(gzip.compress(data))])
@pytest.mark.parametrize("name", KINDS)
def test_named_for_what_it_is_whatever_its_name(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    data, kind, remedy = KINDS[name]
    # By its own name, and by one that promises lines.
    for called in (name, "events.csv", "events.jsonl.gz"):
        (tmp_path / called).write_bytes(pack(data))
        with pytest.raises(InputError) as caught:
            open_source(tmp_path / called)
        told = str(caught.value)
        assert told == f"{tmp_path / called} {'is' if pack is bytes else 'holds'} {told.split(' ', 2)[2]}"
        assert f" {kind}" in told
        assert remedy in str(caught.value.remedy)
    with pytest.raises(InputError, match="standard input"):
        open_source("-", format="csv", stdin=io.BytesIO(pack(data)))


@pytest.mark.parametrize(
    "head",
    [
        b"", b"a", CSV, CSV * 100, b"PARENT,id\n", b"PAR1\n", b"ORC,id\r\n", b"FEA1,x", b"ARROW1\n", b"x<html>,a\n",
        b"Object,id\n", b"PK,id\n", b"BZh,id\n", b"PGDMP;id\n", b'{"id": "x"}\n' * 50, bytes(600),
        b"\xef\xbb\xbfid,a\n", b"0" * 600, b"%PDF,a\n", b"<a>,b\n",
    ],
)  # fmt: skip
def test_what_may_be_lines_of_events_is_nothing_else(head: bytes) -> None:
    assert kind_of(head) is None


def test_a_slow_pipe_is_not_waited_for() -> None:
    """Its first line is there, and less than a header of tar."""

    parts = [CSV]

    class Pipe(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
            assert parts, "read beyond what is there"
            data = parts.pop()
            buffer[: len(data)] = data
            return len(data)

    with open_source("-", format="csv", stdin=io.BufferedReader(Pipe())) as source:
        assert next(iter(source)).fields == {"id": "1", "action": "view", "ts": "2026-03-01T10:00:00Z"}
