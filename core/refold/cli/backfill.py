"""`refold backfill`: bring history from files into the log, beside live events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import psycopg
import typer

from refold.cli.app import DATA, FOUND, app
from refold.cli.backfill_options import freshness_of, rate_of, until_of
from refold.cli.backfill_report import as_dict, counts_of, print_done, print_findings, print_staged, time_left
from refold.cli.bars import progress
from refold.cli.builds import DryRun
from refold.cli.command_group import CommandGroup
from refold.cli.interruptible_log import InterruptibleLog, interruptible
from refold.cli.output import as_json, line, note, plain, table
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
from refold.cli.session import READERS, AsJson, DatabaseUrl, Projections, database, folder, session
from refold.errors import InputError
from refold.prose import counted
from refold.store import file_backfills as store
from refold.store.file_backfills import FileBackfill
from refold.store.log.log import log_as

if TYPE_CHECKING:
    from refold.engine.backfill.run import Terms
    from refold.inspect.backfill.check import Findings
    from refold.sources.files.mapping import Mapping
    from refold.sources.files.staging import StagedFile

backfill = CommandGroup(
    no_args_is_help=True, help="Bring history from files into the log: stage it, see what it would change, and run it."
)
app.add_typer(backfill, name="backfill", rich_help_panel=DATA)

Chosen = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Name of the backfill, which you choose: lower-case letters, digits and underscores, at most 40.",
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the backfill.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Read as much as it takes to tell the effect on each metric.")]
Rate = Annotated[
    str | None,
    typer.Option("--rate", metavar="auto|N", help="Most records a second. auto: as many as live metrics stay fresh."),
]
Freshness = Annotated[
    str | None,
    typer.Option(
        "--freshness",
        metavar="auto|2s",
        help="How far live metrics may be behind. auto: twice what was usual in the last hour, 0.1 to 2 s.",
    ),
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="06:00", help="Pause at this time of the day, by this machine's clock.")
]
AcceptConflicts = Annotated[
    bool,
    typer.Option("--accept-conflicts", help="Run, although more than 1 % of the records conflict with the log."),
]
AcceptInvalid = Annotated[
    bool, typer.Option("--accept-invalid", help="Run, although contracts refuse more than half of the records.")
]


@backfill.command()
def stage(
    name: Chosen,
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
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Read files into a staging table of their own. No event counts yet.

    Formats, mapping and ids are those of `refold ingest`. If a file does not fit the mapping, or cannot be read to its
    end, nothing is staged. Records that are no events are counted, and the first are shown with file and line.

    The exit status is 1 if no record is an event.

    \b
    Examples:
      refold backfill stage january events-2026-01.jsonl.gz
      refold backfill stage old_shop orders-*.csv --id-from order_id \\
        --map user_id=customer,ts=created --set action=purchase --timezone UTC
    """
    mapping = mapping_of(maps, constants, id_from, timezone, ts_format)
    reading = Reading.of(file_format, delimiter, columns, source, nulls, skip_lines, trim)
    check_files(files, mapping, reading)
    options = {
        "map": maps, "set": constants, "id_from": id_from, "timezone": timezone, "ts_format": ts_format,
        "format": None if file_format is None else file_format.value, "delimiter": delimiter, "columns": columns,
        "null": nulls, "skip_lines": skip_lines, "trim": trim, "source": source,
    }  # fmt: skip
    with session(database_url, "refold_backfill", acts=True) as conn, rare_collections():
        staged, read = _stage(
            conn, name, files, mapping, reading, {key: value for key, value in options.items() if value}
        )
    if json:
        as_json({**as_dict(staged), "first_invalid": {one.name: one.first_invalid for one in read if one.invalid}})
    else:
        print_staged(staged, read)
    if staged.invalid == staged.total:
        raise typer.Exit(FOUND)


@backfill.command()
def check(
    name: Name,
    yes: Yes = False,
    projections: Projections = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Show what a backfill would do, before any of its events counts. It changes nothing.

    Every staged record is compared with the ledger and with contracts: new, a duplicate, a conflict (the log has the id
    with other content), repeated within the files, or invalid: no event, or one that a contract refuses. For each live
    metric the rows that would be added or change are computed and compared with the rows that it has.

    It reads one snapshot, without locks. A metric that would have to read much is left out until you say --yes.

    \b
    Examples:
      refold backfill check january
      refold backfill check january --json
    """
    with session(database_url) as conn:
        store.insist_on_tables(conn)
        current = store.known(conn, name)
        found = _check(conn, current, projections, agreed=yes)
    with session(database_url, "refold_backfill") as conn:
        _keep(conn, current, found)
    if json:
        as_json({"backfill": name, **found.as_dict()})
    else:
        print_findings(name, found)


@backfill.command()
def run(
    name: Name,
    rate: Rate = None,
    freshness: Freshness = None,
    until: Until = None,
    accept_conflicts: AcceptConflicts = False,
    accept_invalid: AcceptInvalid = False,
    projections: Projections = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Give the staged events to the log, as fast as live metrics stay fresh.

    After each batch the age of the oldest event that a live metric lacks decides: as long as it is within the limit,
    batches grow by a tenth; beyond it they halve, and the next one waits. After ten minutes of late metrics the
    backfill pauses itself and opens the incident `backfill_paused`.

    It is killed anywhere without harm: the same command goes on, and no event is taken twice. Ctrl-C ends it after the
    current batch. Without a check the check comes first. One backfill runs at a time.

    \b
    Examples:
      refold backfill run january
      refold backfill run january --freshness 5s --until 06:00
      refold backfill run january --rate 2000
    """
    _run(name, rate, freshness, until, accept_conflicts, accept_invalid, projections, json, database_url)


@backfill.command()
def pause(name: Name, json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """Pause a backfill that runs anywhere: it ends before its next batch.

    \b
    Example:
      refold backfill pause january
    """
    with session(database_url, "refold_backfill", acts=True) as conn:
        current = _known(conn, name)
        changed = store.pause(conn, current, "`refold backfill pause`")
    if json:
        as_json({"backfill": name, "paused": changed})
    elif changed:
        line(f"{name}: paused behind {current.mark:,} of {counted(current.total, 'record')}")
        note(f"`refold backfill resume {name}` goes on")
    else:
        line(f"{name}: nothing to do, it is {current.state}")


@backfill.command()
def resume(
    name: Name,
    rate: Rate = None,
    freshness: Freshness = None,
    until: Until = None,
    accept_conflicts: AcceptConflicts = False,
    accept_invalid: AcceptInvalid = False,
    projections: Projections = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Go on with a backfill that was paused, interrupted or killed, with the same --rate and --freshness.

    \b
    Examples:
      refold backfill resume january
      refold backfill resume january --freshness 10s
    """
    _run(name, rate, freshness, until, accept_conflicts, accept_invalid, projections, json, database_url, resumes=True)


@backfill.command()
def abort(name: Name, dry_run: DryRun = False, json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """End a backfill and drop what is staged. Events that are in the log by now stay there.

    \b
    Examples:
      refold backfill abort january --dry-run
      refold backfill abort january
    """
    from refold.engine.backfill.run import abort as end

    with session(database_url, "refold_backfill", acts=True) as conn:
        current = _known(conn, name)
        if not dry_run:
            end(conn, current)
            current = store.read(conn, current.backfill_id)
    if not dry_run:
        with session(database_url) as conn:
            _resolve(conn, name, "the backfill was aborted")
    if json:
        as_json({**as_dict(current), "done": not dry_run})
        return
    would = "would drop" if dry_run else "dropped"
    line(f"{name}: {would} {counted(current.left, 'staged record')}")
    if current.accepted:
        note(f"{counted(current.accepted, 'event')} of it stay in the log")


@backfill.command()
def status(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Name of a backfill; by default all.")] = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Show backfills: how far each is, its rate, when it will be done, and why it is slow.

    \b
    Examples:
      refold backfill status
      refold backfill status january --json
    """
    with session(database_url, READERS) as conn:
        store.insist_on_tables(conn)
        found = store.as_told(conn, store.every(conn) if name is None else [store.known(conn, name, over=True)])
    if json:
        as_json([as_dict(one) for one in found] if name is None else as_dict(found[0]))
        return
    if not found:
        note("no backfill: `refold backfill stage NAME FILE…` begins one")
        return
    table(
        (
            "BACKFILL",
            "STATE",
            "RECORDS",
            "DONE",
            "ACCEPTED",
            "DUPLICATE",
            "CONFLICT",
            "INVALID",
            "RATE",
            "LEFT",
            "WHY",
        ),
        [
            (
                one.name,
                one.state,
                one.total,
                f"{100 * one.mark / one.total:.0f} %" if one.total else None,
                one.accepted,
                one.duplicates,
                one.conflicts,
                one.invalid_so_far,
                f"{one.per_second:,.0f}/s" if one.state == "running" and one.per_second else None,
                time_left(one) if one.state == "running" else None,
                one.because,
            )
            for one in found
        ],
        right=("RECORDS", "DONE", "ACCEPTED", "DUPLICATE", "CONFLICT", "INVALID", "RATE", "LEFT"),
        spare=("INVALID", "DUPLICATE", "ACCEPTED"),
    )


def _known(conn: psycopg.Connection, name: str) -> FileBackfill:
    store.insist_on_tables(conn)
    return store.known(conn, name)


# Staging


def _stage(
    conn: psycopg.Connection,
    name: str,
    files: Sequence[str],
    mapping: Mapping,
    reading: Reading,
    options: dict[str, Any],
) -> tuple[FileBackfill, list[StagedFile]]:
    from refold.postgres.failpoints import failpoint
    from refold.postgres.locks import alone
    from refold.sources.files.mapper import Mapper
    from refold.sources.files.staging import Stager

    store.insist_on_tables(conn)
    _make_room(conn, name)
    current = store.begin(conn, name, options)
    try:
        stager = Stager(conn, current)
        with alone(conn, current.staging, f"stage {name}", "refold_backfill", seconds=0):
            for path in files:
                with reading.open(path) as opened, bar(opened) as show:
                    stager.stage(
                        opened,
                        Mapper(mapping, opened),
                        lambda file, show=show: show(counts_of(file), file.records),  # type: ignore[misc]
                    )
        failpoint("staged_files")
        if not sum(one.records for one in stager.files):
            raise InputError(f"{', '.join(files)}: there are no records")
        told = [{"name": one.name, "bytes": one.bytes, "records": one.records} for one in stager.files]
        return store.staged(conn, current, told), stager.files
    except BaseException:
        if not conn.closed and not conn.broken:
            store.give_up(conn, current)
            store.sweep(conn)
        raise


def _make_room(conn: psycopg.Connection, name: str) -> None:
    """Remove a half staging of this name that a killed process has left; refuse if the name is taken otherwise."""
    from refold.postgres.locks import holder

    for one in store.every(conn, open_only=True):
        if one.name != name:
            continue
        who = holder(conn, one.staging) if one.state == "staging" else None
        if one.state == "staging" and who is None and store.give_up(conn, one):
            note(f"an earlier staging of {name} was interrupted: it begins anew")
            break
        raise InputError(
            f"the backfill {name} is being staged by {who}" if who else f"the backfill {name} is {one.state} already",
            remedy=f"Choose another name, or end it with `refold backfill abort {name}`.",
        )
    store.sweep(conn)


# Checking


def _check(conn: psycopg.Connection, current: FileBackfill, projections: Any, *, agreed: bool) -> Findings:
    from dataclasses import replace

    from refold.inspect.backfill.check import BOUND
    from refold.inspect.backfill.check import check as read
    from refold.store.builds.compiled import Compiler

    return read(conn, Compiler(folder(projections, quiet=True)), current, replace(BOUND, agreed=agreed))


def _keep(conn: psycopg.Connection, current: FileBackfill, found: Findings) -> FileBackfill:
    """Store what a check has found."""
    return store.checked(conn, current, found.as_dict(), plain)


# Running


def _run(
    name: str,
    rate: str | None,
    freshness: str | None,
    until: str | None,
    accept_conflicts: bool,
    accept_invalid: bool,
    projections: Any,
    json: bool,
    url: str | None,
    *,
    resumes: bool = False,
) -> None:
    from refold.engine.backfill.run import LATE
    from refold.engine.backfill.run import run as give

    most, fresh, end = rate_of(rate), freshness_of(freshness), None if until is None else until_of(until)
    with session(url, acts=True) as conn:
        store.insist_on_tables(conn)
        current = store.known(conn, name, over=True)
        if current.state == "aborted":
            current = store.known(conn, name)
        if resumes and current.state in ("staging", "staged", "checked"):
            raise InputError(
                f"the backfill {name} is {current.state}: it has not begun",
                remedy=f"`refold backfill run {name}` begins it.",
            )
        address = database(url)
        with (
            InterruptibleLog(address, "refold_backfill") as lane,
            log_as(address, "refold_worker") as reader,
        ):
            if current.state == "done":
                # The process that finished it was killed before it could say so.
                store.sweep(lane.connection())
                print_done(current, json)
                return
            if current.checked_at is None:
                store.insist_on_staged(conn, current)
                found = _check(conn, current, projections, agreed=False)
                current = _keep(lane.connection(), current, found)
                if not json:
                    print_findings(name, found)
            _insist_on_few_refused(current, conflicts=accept_conflicts, invalid=accept_invalid)
            terms = _terms(conn, current, most, fresh, end)
            with interruptible(lane), _bar(current) as show:
                try:
                    done = give(lane, reader, current, terms, progress=show, between=lane.batch_ended)
                except KeyboardInterrupt:
                    note(f"`refold backfill resume {name}` goes on where it ended")
                    raise
    print_done(done, json)
    if done.because == LATE:
        raise typer.Exit(FOUND)


def _terms(
    conn: psycopg.Connection,
    current: FileBackfill,
    rate: int | None,
    freshness: float | None,
    until: datetime | None,
) -> Terms:
    """Return what a run keeps to; one that goes on keeps to what it had, where nothing else is given."""
    from refold.engine.backfill.run import Terms, usual_s
    from refold.model.backfill.pace import limit

    rate = current.rate_limit if rate is None else rate
    freshness = current.freshness_limit if freshness is None else freshness
    return Terms(freshness or limit(usual_s(conn)), rate or None, until)


def _insist_on_few_refused(current: FileBackfill, *, conflicts: bool, invalid: bool) -> None:
    """Refuse files that are probably not what they should be, unless somebody accepts what they bring."""
    from refold.inspect.backfill.check import answers_of

    assert current.findings is not None
    found = answers_of(current.findings)
    if found.too_many_breaches and not invalid:
        raise InputError(
            f"contracts refuse {counted(found.breaches, 'record')} of {current.name}: more than half",
            remedy=f"Look at them (`refold backfill check {current.name}`). They would be rejected: with"
            " --accept-invalid it runs all the same.",
        )
    if found.too_many_conflicts and not conflicts:
        raise InputError(
            f"{counted(found.conflicts, 'record')} of {current.name} conflict with the log: more than 1 %",
            remedy=f"Look at them (`refold backfill check {current.name}`). They would be rejected: with"
            " --accept-conflicts it runs all the same.",
        )


@contextmanager
def _bar(current: FileBackfill) -> Iterator[Callable[[FileBackfill], None]]:
    """Draw how far the backfill is, its rate, when it will be done, and why it is slow."""
    with progress() as shown:
        task = shown.add_task(current.name, total=current.total, completed=current.mark, note="")

        def show(now: FileBackfill) -> None:
            rate = f"{now.per_second:,.0f}/s" if now.per_second else ""
            told = [rate, f"{eta} left" if (eta := time_left(now)) else "", now.because or ""]
            shown.update(task, completed=now.mark, note="  ".join(one for one in told if one))

        yield show


def _resolve(conn: psycopg.Connection, name: str, because: str) -> None:
    from refold.engine.backfill.run import COMMAND
    from refold.store.incidents import resolve

    resolve(conn, "backfill_paused", name, by=COMMAND, outcome={"because": because})
