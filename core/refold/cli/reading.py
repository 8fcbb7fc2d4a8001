"""The options with which commands read files of events, and what they share in reading them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TimeElapsedColumn, TimeRemainingColumn

from refold.cli.bars import PlainColumn
from refold.cli.output import err
from refold.errors import InputError
from refold.sources.files.readers import Format, Source, open_source

if TYPE_CHECKING:
    from refold.sources.files.mapping import Mapping

ALLOCATIONS = 500_000
"""Objects allocated and not freed between two looks for cyclic garbage; a batch of the usual size has fewer."""

COLUMNS, EVENTS = "Columns to fields", "The file"


class FileFormat(StrEnum):
    """The format of a file."""

    jsonl = "jsonl"
    csv = "csv"
    parquet = "parquet"


Files = Annotated[list[str], typer.Argument(metavar="FILE…", help="Files, plain or compressed; - is standard input.")]
Maps = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="FIELD=COLUMN,…",
        help="Map fields of the event to columns, to nested fields (actor.id) or to the first that is there (a|b).",
        rich_help_panel=COLUMNS,
    ),
]
Constants = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE,…",
        help="Set a field to the same value for all events.",
        rich_help_panel=COLUMNS,
    ),
]
IdFrom = Annotated[
    str | None,
    typer.Option(
        "--id-from",
        metavar="row|COLUMN,…",
        help="Derive ids from the source's name and row number, or from columns, if the file has none.",
        rich_help_panel=COLUMNS,
    ),
]
Timezone = Annotated[
    str | None,
    typer.Option("--timezone", metavar="TZ", help="Time zone of times without an offset.", rich_help_panel=COLUMNS),
]
TimeFormat = Annotated[
    str | None,
    typer.Option(
        "--ts-format",
        metavar="FORMAT",
        help="Format of times: epoch_s, epoch_ms, epoch_us, epoch_ns, excel (days), or a strptime format.",
        rich_help_panel=COLUMNS,
    ),
]
FormatName = Annotated[
    FileFormat | None,
    typer.Option("--format", help="Default: from the extension.", show_default=False, rich_help_panel=EVENTS),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        "--delimiter", metavar="CHARACTER", help="A character, `tab` or `whitespace`.", rich_help_panel=EVENTS
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns", metavar="A,B,…", help="Column names, for CSV without a header line.", rich_help_panel=EVENTS
    ),
]
Nulls = Annotated[
    list[str] | None,
    typer.Option("--null", metavar="TEXT", help="A CSV value that means no value; repeatable.", rich_help_panel=EVENTS),
]
SkipLines = Annotated[
    int,
    typer.Option("--skip-lines", min=0, metavar="N", help="Lines before the header.", rich_help_panel=EVENTS),
]
Trim = Annotated[
    bool,
    typer.Option("--trim", help="Leave out white space around CSV values.", rich_help_panel=EVENTS),
]
SourceName = Annotated[
    str | None,
    typer.Option(
        "--source", metavar="NAME", help="Name of the source. Default: the file's name.", rich_help_panel=EVENTS
    ),
]


@dataclass(frozen=True, slots=True)
class Reading:
    """The options for opening files.

    Args:
        format: None derives it from the extension.
        delimiter: one character, `tab` or `whitespace`.
        columns: column names for a file without a header line.
        name: name of the source.
        nulls: values of CSV that count as absent.
        skip_lines: number of lines before the header.
        trim: leave out white space around the values of CSV.
    """

    format: Format | None
    delimiter: str | None
    columns: tuple[str, ...] | None
    name: str | None
    nulls: tuple[str, ...] = ()
    skip_lines: int = 0
    trim: bool = False

    @classmethod
    def of(
        cls,
        file_format: FileFormat | None,
        delimiter: str | None,
        columns: str | None,
        name: str | None,
        nulls: Sequence[str] | None,
        skip_lines: int,
        trim: bool,
    ) -> Reading:
        """Return the options as the command line gives them."""
        named = None if columns is None else tuple(columns.split(","))
        return cls(
            None if file_format is None else file_format.value,
            delimiter,
            named,
            name,
            tuple(nulls or ()),
            skip_lines,
            trim,
        )

    def open(self, path: str) -> Source:
        """Open a file, or standard input for `-`."""
        return open_source(
            path,
            format=self.format,
            delimiter=self.delimiter,
            columns=self.columns,
            name=self.name,
            nulls=self.nulls,
            skip_lines=self.skip_lines,
            trim=self.trim,
        )


def mapping_of(
    maps: Sequence[str] | None,
    constants: Sequence[str] | None,
    id_from: str | None,
    timezone: str | None,
    ts_format: str | None,
) -> Mapping:
    """Return the mapping of columns to fields as the command line gives it."""
    from refold.sources.files.mapping import Mapping

    return Mapping.parse(map=maps or (), set=constants or (), timezone=timezone, ts_format=ts_format, id_from=id_from)


def check_files(files: Sequence[str], mapping: Mapping, reading: Reading) -> None:
    """Check every file before the first event is stored.

    Raises:
        InputError: a file cannot be opened, the mapping does not fit it, or two files would share their ids.
    """
    from refold.sources.files.identity import STDIN
    from refold.sources.files.mapper import Mapper

    if len(files) > 1 and reading.name is not None:
        raise InputError("--source applies to one file, but several are given", remedy="Ingest the files one by one.")
    seen: dict[str, str] = {}
    for path in files:
        if path == STDIN or not Path(path).is_file():
            # What can be read only once is looked at when its turn comes.
            name = STDIN
            if path != STDIN and not Path(path).exists():
                raise InputError(f"cannot open {path}: the file does not exist")
        else:
            with reading.open(path) as opened:
                Mapper(mapping, opened)
                name = opened.name
        if name in seen:
            raise InputError(
                f"{seen[name]} and {path} are both called {name!r}, so their rows would get the same ids",
                remedy="Ingest the files one by one, each with its own --source.",
            )
        seen[name] = path


@contextmanager
def rare_collections() -> Iterator[None]:
    """Look for cyclic garbage rarely: records have no cycles, and each look goes over all records of a batch."""
    before = gc.get_threshold()
    gc.set_threshold(ALLOCATIONS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def bar(source: Source) -> Iterator[Callable[[str, int], None]]:
    """Draw a progress bar by bytes, with counts and rate, on stderr; nothing where that is not a terminal."""
    shown = Progress(
        SpinnerColumn(),
        PlainColumn("{task.description}"),
        BarColumn(),
        PlainColumn("{task.fields[counts]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )
    started = time.monotonic()
    with shown:
        task = shown.add_task(source.name, total=source.total_bytes, counts="")

        def show(counts: str, records: int) -> None:
            rate = records / max(time.monotonic() - started, 1e-3)
            shown.update(task, completed=source.bytes_read, counts=f"{counts}  {rate:,.0f}/s")

        yield show
