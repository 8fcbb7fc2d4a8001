"""Opening a source: JSON or CSV, plain or compressed, or Parquet, from a file or standard input, of any size.

A record that cannot be read becomes a Record with an error and its raw text; the rest of the file goes on.
What is wrong with the whole file (no header, a column twice, damaged gzip) raises InputError.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Literal

from refold.errors import InputError
from refold.sources.files.identity import STDIN, source_name
from refold.sources.files.json_files import json_source
from refold.sources.files.lines import LineReader
from refold.sources.files.packing import unpacked_name
from refold.sources.files.parquet import Parquet, is_parquet
from refold.sources.files.records import Record, Source
from refold.sources.files.tables import Csv, Habits, Whitespace, separator

__all__ = ["WHITESPACE", "Format", "Record", "Source", "open_source"]

Format = Literal["jsonl", "csv", "parquet"]

WHITESPACE = "whitespace"
"""Delimiter for columns aligned by blanks and tabs; such files have no quotes."""

_DELIMITERS = {"tab": "\t", "\\t": "\t"}


def open_source(
    path: str | Path,
    *,
    format: Format | None = None,
    delimiter: str | None = None,
    columns: Sequence[str] | None = None,
    name: str | None = None,
    stdin: BinaryIO | None = None,
    nulls: Sequence[str] = (),
    skip_lines: int = 0,
    trim: bool = False,
) -> Source:
    """Open a file, or standard input for `-`, plain or compressed; the first bytes decide.

    format: by default from the extension (.json, .jsonl, .ndjson, .csv, .tsv, each also .gz or .zst), in either case; a
        delimiter means CSV.
    delimiter: one character, `tab` or `whitespace`; a comma by default.
    columns: names for a CSV file that has no header line.
    name: what to call the source; by default the file's base name, unpacked, and `-` for a pipe.
    stdin: stream to read for `-`.
    nulls: values of CSV that count as absent.
    skip_lines: number of lines before the header, or before the first record.
    trim: leave out white space around the values of CSV.

    Raises InputError.
    """
    if format in (None, "parquet") and is_parquet(path):
        if delimiter is not None or columns is not None or nulls or skip_lines or trim:
            raise InputError(
                f"{path} is a Parquet file: options that read lines do not apply",
                remedy="Omit --delimiter, --columns, --null, --skip-lines and --trim.",
            )
        return Parquet(path, source_name(str(path), name))
    if format == "parquet":
        # What the file is, or why it cannot be opened, says more.
        LineReader(path, stdin=stdin).close()
        raise InputError(f"{path} is not a Parquet file", remedy="Choose jsonl or csv.")
    try:
        chosen, separated = _form(str(path), format, delimiter, columns is not None)
        if chosen == "jsonl" and (nulls or trim):
            raise InputError("--null and --trim are for CSV, and these are JSON lines", remedy="Omit these options.")
    except InputError:
        # What the file is says more than what its name does not say.
        if Path(path).is_file():
            LineReader(path).close()
        raise
    # A pipe has a name only by accident (/dev/fd/63): it counts as standard input does.
    called = str(path) if str(path) != STDIN and Path(path).is_file() else STDIN
    lines = LineReader(path, stdin=stdin)
    try:
        called = source_name(called, name)
        lines.skip(skip_lines)
        if chosen == "jsonl":
            return json_source(lines, called)
        habits = Habits(frozenset(nulls), trim)
        if separated == WHITESPACE:
            return Whitespace(lines, called, columns, habits)
        noted = separator(lines)
        return Csv(lines, called, columns, separated if delimiter is not None or noted is None else noted, habits)
    except BaseException:
        lines.close()
        raise


def _form(path: str, format: str | None, delimiter: str | None, named: bool) -> tuple[str, str]:
    """Decide between JSON lines and CSV, and on the delimiter."""
    extension = Path(unpacked_name(path)).suffix.lower()
    if format is None:
        if delimiter is not None or named or extension in (".csv", ".tsv"):
            format = "csv"
        elif extension in (".json", ".jsonl", ".ndjson"):
            format = "jsonl"
        else:
            raise InputError(
                f"cannot tell whether {'standard input' if path == STDIN else path} holds JSON lines or CSV",
                remedy="Add --format jsonl or --format csv.",
            )
    if format not in ("jsonl", "csv"):
        raise InputError(f"unknown format {format!r}", remedy="Choose jsonl, csv or parquet.")
    if format == "jsonl" and (delimiter is not None or named):
        raise InputError("JSON lines have no delimiter and no columns", remedy="Omit these options.")
    if delimiter is None:
        delimiter = "\t" if extension == ".tsv" else ","
    delimiter = _DELIMITERS.get(delimiter, delimiter)
    if delimiter != WHITESPACE and (len(delimiter) != 1 or delimiter in '"\r\n\0'):
        raise InputError(f"{delimiter!r} cannot be a delimiter", remedy="Choose one character, tab or whitespace.")
    return format, delimiter
