"""`refold ingest`: load events from files."""

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

from refold.cli.app import DATA, app
from refold.cli.bars import PlainColumn
from refold.cli.ingest_report import FileReport, counts_of, print_json, print_summary
from refold.cli.interruptible_log import InterruptibleLog, interruptible
from refold.cli.output import err
from refold.cli.session import AsJson, DatabaseUrl, database
from refold.errors import InputError, NotInstalled
from refold.sources.files.readers import Format, Source, open_source
from refold.sources.files.run import BATCH

if TYPE_CHECKING:
    from refold.sources.files.mapping import Mapping
    from refold.sources.files.run import Tally

ALLOCATIONS = 500_000
"""Objects allocated and not freed between two looks for cyclic garbage; a batch of the usual size has fewer."""

WAS_REJECTED = 1
"""Exit status when all records of a file were rejected; with --strict, when any record was."""

COLUMNS, EVENTS, RUNNING = "Columns to fields", "The file", "Running"


class FileFormat(StrEnum):
    """The format of a file."""

    jsonl = "jsonl"
    csv = "csv"
    parquet = "parquet"


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


@app.command(rich_help_panel=DATA)
def ingest(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE…", help="Files, plain or compressed; - is standard input.")
    ],
    maps: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="FIELD=COLUMN,…",
            help="Map fields of the event to columns, to nested fields (actor.id) or to the first that is there (a|b).",
            rich_help_panel=COLUMNS,
        ),
    ] = None,
    constants: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE,…",
            help="Set a field to the same value for all events.",
            rich_help_panel=COLUMNS,
        ),
    ] = None,
    id_from: Annotated[
        str | None,
        typer.Option(
            "--id-from",
            metavar="row|COLUMN,…",
            help="Derive ids from the source's name and row number, or from columns, if the file has none.",
            rich_help_panel=COLUMNS,
        ),
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option("--timezone", metavar="TZ", help="Time zone of times without an offset.", rich_help_panel=COLUMNS),
    ] = None,
    ts_format: Annotated[
        str | None,
        typer.Option(
            "--ts-format",
            metavar="FORMAT",
            help="Format of times: epoch_s, epoch_ms, epoch_us, epoch_ns, excel (days), or a strptime format.",
            rich_help_panel=COLUMNS,
        ),
    ] = None,
    file_format: Annotated[
        FileFormat | None,
        typer.Option("--format", help="Default: from the extension.", show_default=False, rich_help_panel=EVENTS),
    ] = None,
    delimiter: Annotated[
        str | None,
        typer.Option(
            "--delimiter", metavar="CHARACTER", help="A character, `tab` or `whitespace`.", rich_help_panel=EVENTS
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns", metavar="A,B,…", help="Column names, for CSV without a header line.", rich_help_panel=EVENTS
        ),
    ] = None,
    nulls: Annotated[
        list[str] | None,
        typer.Option(
            "--null", metavar="TEXT", help="A CSV value that means no value; repeatable.", rich_help_panel=EVENTS
        ),
    ] = None,
    skip_lines: Annotated[
        int,
        typer.Option("--skip-lines", min=0, metavar="N", help="Lines before the header.", rich_help_panel=EVENTS),
    ] = 0,
    trim: Annotated[
        bool,
        typer.Option("--trim", help="Leave out white space around CSV values.", rich_help_panel=EVENTS),
    ] = False,
    source: Annotated[
        str | None,
        typer.Option(
            "--source", metavar="NAME", help="Name of the source. Default: the file's name.", rich_help_panel=EVENTS
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", min=1, max=100_000, help="Records per transaction.", rich_help_panel=RUNNING)
    ] = BATCH,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if any record was rejected.", rich_help_panel=RUNNING)
    ] = False,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Load events from files: JSON, CSV or Parquet, plain or compressed with gzip, zlib or zstd.

    An event has an id, a user_id, an action and a ts (the time when it happened). All other columns of the file go
    into its metadata. refold does not guess: --map maps fields to columns, --set gives a field the same value for all
    events, and --id-from derives ids if the file has none.

    JSON without --map has the shape of events, with their own metadata and version. A record with any other field is
    rejected; with a --map, such as `--map id=id`, other fields go into its metadata.

    A path reads nested JSON (`--map user_id=actor.id`, `--id-from source.lsn`). `--map 'user_id=userId|anonymousId'`
    takes the first value that is there and is neither null nor empty text.

    `--id-from row` derives the id from the file's name and the row's number. A second run then stores nothing, a file
    that has grown adds its new rows, a changed row is a conflict, and identical rows stay separate events.

    Every record is stored, recognised as a duplicate, or rejected with its line and the reason (`refold rejected`).
    The exit status is 1 if all records of a file were rejected. After Ctrl-C only whole batches are stored; run the
    same command again to load the rest.

    JSON is one object a line, arrays of objects, or objects without line breaks between. Parquet needs the extra
    `parquet` of refold, and zstd before Python 3.14 the extra `zstd`.

    \b
    Events as JSON lines, from a pipe:
      zcat events.jsonl.gz | refold ingest --format jsonl -

    \b
    A clickstream (client_id,event,timestamp) whose times have no offset and are in UTC:
      refold ingest simple-onlineshop.csv --id-from row --timezone UTC \\
        --map user_id=client_id,action=event,ts=timestamp

    \b
    Purchases in columns aligned with blanks, with dates such as 19970101:
      refold ingest CDNOW_master.txt.gz --delimiter whitespace \\
        --map user_id=customer_id,ts=date --set action=purchase \\
        --ts-format %Y%m%d --timezone UTC --id-from row
    """
    from refold.sources.files.mapping import Mapping

    mapping = Mapping.parse(
        map=maps or (), set=constants or (), timezone=timezone, ts_format=ts_format, id_from=id_from
    )
    named = None if columns is None else tuple(columns.split(","))
    reading = Reading(
        None if file_format is None else file_format.value,
        delimiter,
        named,
        source,
        tuple(nulls or ()),
        skip_lines,
        trim,
    )
    check_files(files, mapping, reading)
    reports: list[FileReport] = []
    started = time.monotonic()
    interrupted = True
    try:
        with _log(database(database_url)) as log, interruptible(log), _rare_collections():
            for path in files:
                _ingest_file(log, path, mapping, reading, batch, reports)
        interrupted = False
    except Exception:
        interrupted = False
        raise
    finally:
        if json:
            print_json(reports, interrupted, time.monotonic() - started)
        else:
            print_summary(reports, time.monotonic() - started)
    if any(report.nothing_got_in or (strict and report.tally.rejected) for report in reports):
        raise typer.Exit(WAS_REJECTED)


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
def _rare_collections() -> Iterator[None]:
    """Look for cyclic garbage rarely: records have no cycles, and each look goes over all records of a batch."""
    before = gc.get_threshold()
    gc.set_threshold(ALLOCATIONS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def _log(url: str) -> Iterator[InterruptibleLog]:
    with InterruptibleLog(url) as log:
        row = log.connection().execute("SELECT to_regprocedure('refold.ensure_room(bigint)')").fetchone()
        if row == (None,):
            raise NotInstalled("refold is not installed in this database", remedy="Run `refold migrate` first.")
        yield log


def _ingest_file(
    log: InterruptibleLog, path: str, mapping: Mapping, reading: Reading, batch: int, reports: list[FileReport]
) -> None:
    from refold.sources.files.mapper import Mapper
    from refold.sources.files.run import ingest as ingest_source

    with reading.open(path) as opened, _bar(opened) as show:
        report = FileReport(opened.name)
        reports.append(report)

        def progress(tally: Tally) -> None:
            show(tally)
            log.batch_ended()

        ingest_source(
            log,
            opened,
            Mapper(mapping, opened),
            report.tally,
            batch=batch,
            progress=progress,
            on_rejected=report.add_rejected,
        )


@contextmanager
def _bar(source: Source) -> Iterator[Callable[[Tally], None]]:
    """Draw a progress bar by bytes, with counts and rate, on stderr; nothing where that is not a terminal."""
    bar = Progress(
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
    with bar:
        task = bar.add_task(source.name, total=source.total_bytes, counts="")

        def show(tally: Tally) -> None:
            rate = tally.received / max(time.monotonic() - started, 1e-3)
            bar.update(task, completed=source.bytes_read, counts=f"{counts_of(tally)}  {rate:,.0f}/s")

        yield show
