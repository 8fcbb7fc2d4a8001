"""`refold ingest`: load events from files."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from refold.cli.app import DATA, app
from refold.cli.ingest_report import FileReport, counts_of, print_json, print_summary
from refold.cli.interruptible_log import InterruptibleLog, interruptible
from refold.cli.reading import (
    Columns,
    Constants,
    Delimiter,
    Files,
    FormatName,
    IdFrom,
    Maps,
    Nulls,
    Reading,
    SkipLines,
    SourceName,
    TimeFormat,
    Timezone,
    Trim,
    bar,
    check_files,
    mapping_of,
    rare_collections,
)
from refold.cli.session import AsJson, DatabaseUrl, database
from refold.errors import NotInstalled
from refold.sources.files.run import BATCH

if TYPE_CHECKING:
    from refold.sources.files.mapping import Mapping
    from refold.sources.files.run import Tally

WAS_REJECTED = 1
"""Exit status when all records of a file were rejected; with --strict, when any record was."""

RUNNING = "Running"


@app.command(rich_help_panel=DATA)
def ingest(
    files: Files,
    maps: Maps = None,
    constants: Constants = None,
    id_from: IdFrom = None,
    timezone: Timezone = None,
    ts_format: TimeFormat = None,
    file_format: FormatName = None,
    delimiter: Delimiter = None,
    columns: Columns = None,
    nulls: Nulls = None,
    skip_lines: SkipLines = 0,
    trim: Trim = False,
    source: SourceName = None,
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
    mapping = mapping_of(maps, constants, id_from, timezone, ts_format)
    reading = Reading.of(file_format, delimiter, columns, source, nulls, skip_lines, trim)
    check_files(files, mapping, reading)
    reports: list[FileReport] = []
    started = time.monotonic()
    interrupted = True
    try:
        with _log(database(database_url)) as log, interruptible(log), rare_collections():
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

    with reading.open(path) as opened, bar(opened) as show:
        report = FileReport(opened.name)
        reports.append(report)

        def progress(tally: Tally) -> None:
            show(counts_of(tally), tally.received)
            log.batch_ended()

        ingest_source(
            log,
            opened,
            Mapper(mapping, opened),
            report.tally,
            batch=batch,
            progress=progress,
            on_rejected=report.add_rejected,
            # As other programs are given the trace in which they are run.
            traceparent=os.environ.get("TRACEPARENT"),
        )
