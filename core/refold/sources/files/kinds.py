"""Recognition of files in other formats by their first bytes: archives, spreadsheets, columnar files, and so on."""

from __future__ import annotations

import re
from typing import NamedTuple

HEAD_BYTES = 512
"""Bytes that identify a format: a block of a tar archive."""

_NO_TEXT = rb"[\x00-\x08\x0e-\x1f\x80-\xff]"
_INGEST = "| refold ingest --format csv -   (or jsonl)"
_FILES = "then ingest the files in it."
_SHEET = "Save each sheet as CSV."
_COLUMNS = "Convert it, for example with DuckDB: duckdb -c \"COPY (FROM '{}') TO 'events.csv'\""


class Kind(NamedTuple):
    """A file format that refold cannot ingest."""

    name: str
    """With its article: `a zip archive`."""
    remedy: str


_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (rb"\xff\xfe|\xfe\xff", "UTF-16 text", f"Convert it: iconv -f UTF-16 -t UTF-8 FILE {_INGEST}"),
    # Office and LibreOffice write zip archives, in which these come first.
    (rb"PK\x03\x04.{26}(\[Content_Types\]\.xml|_rels/|xl/|docProps/)", "a spreadsheet (xlsx)", _SHEET),
    (rb"PK\x03\x04.{26}mimetypeapplication/vnd\.oasis\.", "a spreadsheet (OpenDocument)", _SHEET),
    (rb"PK\x03\x04|PK\x05\x06|PK\x07\x08", "a zip archive", f"Unpack it with unzip, {_FILES}"),
    (rb"BZh[1-9]1AY", "compressed with bzip2", f"Decompress it: bzip2 -dc FILE {_INGEST}"),
    (rb"\xfd7zXZ", "compressed with xz", f"Decompress it: xz -dc FILE {_INGEST}"),
    (rb"\x1f\x9d", "compressed with compress", f"Decompress it: gzip -dc FILE {_INGEST}"),
    (rb"\x04\x22\x4d\x18", "compressed with lz4", f"Decompress it: lz4 -dc FILE {_INGEST}"),
    (rb"7z\xbc\xaf", "a 7z archive", f"Unpack it with 7z x, {_FILES}"),
    (rb"Rar!\x1a\x07", "a rar archive", f"Unpack it with unrar x, {_FILES}"),
    (rb"\xd0\xcf\x11\xe0", "a spreadsheet (xls) or another document of Office", _SHEET),
    (rb"PAR1" + _NO_TEXT, "a Parquet file that is compressed, cut or in a pipe",
     "Save the whole file uncompressed, and name it: refold ingest FILE.parquet"),
    (rb"PARE" + _NO_TEXT, "an encrypted Parquet file", _COLUMNS.format("FILE.parquet")),
    (rb"ORC" + _NO_TEXT, "an ORC file", "Convert it to CSV or JSON lines."),
    (rb"(ARROW1|FEA1)" + _NO_TEXT, "an Arrow (Feather) file", "Convert it to CSV or JSON lines."),
    (rb"Obj\x01", "an Avro file", "Convert it to JSON lines: avro-tools tojson FILE"),
    (rb"SQLite format 3\0", "a SQLite database", "Export its table: sqlite3 -header -csv FILE 'SELECT …'"),
    (rb"PGDMP" + _NO_TEXT, "a dump of PostgreSQL",
     "Restore it, and export its table: \\copy (SELECT …) TO 'events.csv' CSV HEADER"),
    (rb"%PDF-", "a PDF document", "Get the data as CSV or JSON lines from their source."),
    (rb"(?i)\s*<(!doctype\s+html|html[\s>])", "a web page (HTML)",
     "Open it in a browser: the download may have been a login page."),
    (rb"\s*<\?xml\s", "an XML document", "Convert it to CSV or JSON lines."),
)  # fmt: skip
_BEGINNINGS = [(re.compile(beginning, re.DOTALL), Kind(name, remedy)) for beginning, name, remedy in _KINDS]
_TAR = Kind("a tar archive", f"Unpack it with tar -xf, {_FILES}")


def kind_of(head: bytes) -> Kind | None:
    """Return the format of a file that refold cannot ingest; None for lines of events, plain or compressed. Pure.

    Args:
        head: first bytes of the file, up to `HEAD_BYTES`.
    """
    head = head[:HEAD_BYTES]
    if _is_tar(head):
        return _TAR
    return next((kind for beginning, kind in _BEGINNINGS if beginning.match(head)), None)


def _is_tar(head: bytes) -> bool:
    """Return whether bytes are the header of a tar archive, which has its checksum at a fixed place."""
    if len(head) < HEAD_BYTES or not head[0]:
        return False
    noted = re.match(rb"[ 0]*([0-7]{1,7})[ \0]", head[148:156])
    return noted is not None and int(noted[1], 8) == sum(head) - sum(head[148:156]) + 8 * ord(" ")
