"""`refold archive`: sealed segments of the log as files in a store."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import psycopg
import typer

from refold.cli.app import DRIFT, TRUST, app
from refold.cli.bars import progress
from refold.cli.command_group import CommandGroup
from refold.cli.confirm import confirm
from refold.cli.output import as_json, line, note, table
from refold.cli.purge import purge
from refold.cli.session import INSPECTORS, AsJson, DatabaseUrl, session
from refold.errors import InputError, RefoldError
from refold.prose import counted
from refold.suggest import did_you_mean

if TYPE_CHECKING:
    from refold.engine.archive.restore import Restored
    from refold.engine.archive.verify import Verified
    from refold.engine.archive.write import Archived
    from refold.inspect.archive import ArchiveStatus
    from refold.store.archives import Archive

group = CommandGroup(
    no_args_is_help=True,
    help="Archive the log: write sealed segments to a store as Parquet, verify them, and bring them back.",
)
app.add_typer(group, name="archive", rich_help_panel=TRUST)

BY = "refold archive"
_MIB = 1024 * 1024


@group.command()
def claim(
    location: Annotated[
        str | None,
        typer.Argument(
            metavar="[URL]",
            help="A folder, or s3://bucket/prefix, gs://…, abfs://…. Default: the present one.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say whose the store is; change nothing.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Take the store from another database without asking.")
    ] = False,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Make this database the owner of a store, which workers then archive to.

    Only the owner writes to a store. A copy of a database (a clone, or a restore) reads the files of the original, and
    writes none until you claim the store for it. Then the original only reads. Files are never written over, and the
    files of another owner never removed.

    Secrets come from the environment, as the store's SDK reads them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, say.
    The login must be allowed to act as refold_owner.

    \b
    Examples:
      refold archive claim s3://company-archive/shop
      refold archive claim /mnt/archive/shop --dry-run
    """
    from refold.engine.archive import ownership
    from refold.engine.archive.object_store import open_store
    from refold.store import archives
    from refold.store.log.guards import require_owner
    from refold.store.schema.settings import read_settings

    with session(database_url, acts=True) as conn:
        where = location or read_settings(conn).archive
        if where is None:
            raise InputError("no archive is set", remedy="Give its URL: `refold archive claim s3://bucket/prefix`.")
        store = open_store(where)
        marker = ownership.marker_of(store)
        mine = archives.claim_of(conn)
        owned = ownership.owned(mine, marker) and mine is not None and mine.location == where
        taken = None if marker is None or owned else marker.database
        if dry_run and not owned:
            ownership.refuse_to_leave(conn, store, where)
        elif not owned:
            require_owner(conn)
            if taken is not None and not yes:
                confirm(
                    f"{where} belongs to {taken}, which will only read it. Continue?",
                    piped=f"{where} belongs to {taken}, and stdin is not a terminal",
                    remedy="If that database shall not archive any more: `refold archive claim --yes`.",
                )
            ownership.claim(conn, store, where)
    if json:
        as_json({"archive": where, "owned": owned, "taken_from": taken, "claimed": not dry_run and not owned})
    elif owned:
        line(f"{where} belongs to this database already")
    elif dry_run:
        line(f"{where} {f'belongs to {taken}' if taken else 'belongs to nobody'}: it would be claimed (--dry-run)")
    else:
        line(f"{where} belongs to this database now{f'; {taken} only reads it' if taken else ''}")
        note("Workers archive sealed segments a day after they were sealed (refold.settings.archive_after).")


@group.command()
def run(
    now: Annotated[bool, typer.Option("--now", help="All sealed segments, however young.")] = False,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Archive the sealed segments that are due, as workers do.

    First the command seals what is full and closed to writers. Each segment becomes one Parquet file. The command reads
    it back, and compares its rows with the sealed checksums of the log, slice by slice. Only then the file counts. The
    segment stays in the log.

    Exit status: 0 done, 2 the store failed, or its files are not what was written.

    \b
    Examples:
      refold archive run
      refold archive run --now --json
    """
    from refold.engine.archive.write import run as archive_due
    from refold.store.log.seal import seal

    with session(database_url, acts=True) as conn, progress() as bars:
        seal(conn)
        task = bars.add_task("archiving", total=None, note="")
        found = archive_due(
            conn, by=BY, older_than_s=0 if now else None, progress=lambda name: bars.update(task, description=name)
        )
    as_json(asdict(found)) if json else _show_run(found)


@group.command()
def status(json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """Show the archive: whose it is, which segments it holds, and how far each file is proved.

    \b
    Examples:
      refold archive status
      refold archive status --json
    """
    from refold.inspect.archive import archive_status
    from refold.store import archives, incidents

    with session(database_url, INSPECTORS) as conn:
        found = archive_status(conn)
        files = archives.find(conn)
        strange = None if found is None else _strange(conn, found)
        damaged = [one.subject for one in incidents.open_incidents(conn, "archive_damage")]
    if json:
        told = None if found is None else asdict(found) | {"store": strange, "damaged": damaged}
        as_json({"archive": told, "files": [_told(one) for one in files]})
        return
    if found is None:
        note("there is no archive: `refold archive claim s3://bucket/prefix` (or a folder) sets one")
        return
    _show_status(found, files, strange, damaged)


def _strange(conn: psycopg.Connection, found: ArchiveStatus) -> str | None:
    """Return whose the store is, in words; None: of this database, or this host cannot look."""
    from refold.engine.archive import ownership
    from refold.engine.archive.failures import NotOwner
    from refold.engine.archive.object_store import open_store
    from refold.store import archives

    with suppress(RefoldError, psycopg.errors.InsufficientPrivilege):
        try:
            ownership.insist(open_store(found.location), archives.claim_of(conn), found.location)
        except NotOwner as error:
            return str(error)
    return None


@group.command()
def verify(
    deep: Annotated[bool, typer.Option("--deep", help="Compare every row, not only the bytes of each file.")] = False,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Verify that the store has what was written: size and SHA-256 of each file, with --deep every row.

    A file that is lost or changed counts for nothing from then on, and is an incident (archive_damage). While the log
    has the segment, workers write it again.

    Exit status: 0 all files are right, 1 some are not or are missing, 2 they could not be verified.

    \b
    Examples:
      refold archive verify
      refold archive verify --deep --json
    """
    from refold.engine.archive.verify import verify as look

    with session(database_url, acts=True) as conn, progress() as bars:
        task = bars.add_task("verifying", total=None, note="")
        found = look(
            conn, by=BY, deep=deep, progress=lambda done, total: bars.update(task, completed=done, total=total)
        )
    as_json(asdict(found)) if json else _show_verified(found)
    if found.wrong or found.lacking:
        raise typer.Exit(DRIFT)


group.command()(purge)


@group.command()
def restore(
    segment: Annotated[str, typer.Argument(metavar="SEGMENT", help="Segment, as `refold scrub` names it.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be restored; change nothing.")] = False,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Bring a damaged or lost segment of the log back from the archive.

    Only slices whose events are not those that were sealed are replaced. Each change is kept only if the slice has its
    sealed checksum then. Workers close the incident, and audit what was kept meanwhile.

    As SEGMENT, `refold.cold_ids` stands for the cold ledger: the ids of purged events. Buckets that are damaged are
    made again from the files of the archive.

    The login must be allowed to act as refold_owner.

    \b
    Examples:
      refold archive restore refold.events_000000001048576 --dry-run
      refold archive restore refold.events_000000001048576
      refold archive restore refold.cold_ids
    """
    from refold.engine.archive.restore import restore as bring_back
    from refold.store.log.cold_ledger import TABLE

    if segment in (TABLE, TABLE.removeprefix("refold.")):
        _restore_ids(dry_run, json, database_url)
        return
    with session(database_url, acts=True) as conn:
        found = bring_back(conn, _known(conn, segment), by=BY, dry_run=dry_run)
    as_json(asdict(found)) if json else _show_restored(found, dry_run=dry_run)


def _restore_ids(dry_run: bool, json: bool, database_url: str | None) -> None:
    from refold.engine.archive.ledger import restore as bring_back

    with session(database_url, acts=True) as conn, progress() as bars:
        task = bars.add_task("reading the archive", total=None, note="")
        found = bring_back(
            conn,
            by=BY,
            dry_run=dry_run,
            progress=lambda done, total: bars.update(task, completed=done, total=total),
        )
    if json:
        as_json(asdict(found))
    elif found.before.intact:
        line("the cold ledger is intact: there is nothing to restore")
    elif found.after is None:
        line(f"the cold ledger: {found.before}; it would be restored from the archive")
    else:
        line(f"the cold ledger: {found.before}; {counted(found.buckets, 'bucket')} made again from the archive")
        if not found.after.intact:
            line(f"afterwards: {found.after}")
    if found.after is not None and not found.after.intact:
        raise typer.Exit(DRIFT)


def _known(conn: psycopg.Connection, name: str) -> str:
    """Return the full name of an archived segment given with or without its schema."""
    from refold.store import archives

    names = [one.segment for one in archives.proved_ones(conn)]
    for one in (name, f"refold.{name}"):
        if one in names:
            return one
    raise InputError(
        f"the archive has no proved file of {name}.{did_you_mean(name, names)}",
        remedy="`refold archive status` lists what it has.",
    )


def _told(one: Archive) -> dict[str, object]:
    return asdict(one) | {"segment": one.segment, "sha256": None if one.sha256 is None else one.sha256.hex()}


def _show_run(found: Archived) -> None:
    if not found.written:
        line("nothing to archive: no sealed segment is due")
    else:
        line(
            f"archived {counted(len(found.written), 'segment')}: {counted(found.events, 'event')},"
            f" {found.bytes / _MIB:,.1f} MiB, written in {found.seconds:.1f} s, proved in {found.proving_seconds:.1f} s"
        )
    waiting = len(set(found.written) - set(found.verified))
    if waiting:
        note(f"{counted(waiting, 'file')} will be verified together with the next segment, which shares a slice")


def _show_status(found: ArchiveStatus, files: list[Archive], strange: str | None, damaged: list[str]) -> None:
    if strange is not None:
        line(strange)
    else:
        line(f"{found.location}: {'owned by this database' if found.claimed else 'not owned by this database'}")
    waiting = f"; {counted(found.waiting, 'sealed segment')} without a file" if found.waiting else ""
    line(f"{found.words}{waiting}; {counted(found.events, 'event')} in files, {found.bytes / _MIB:,.1f} MiB")
    if found.failures:
        note(f"{counted(found.failures, 'attempt')} failed: {found.error or 'the error is not for this login'}")
    if damaged:
        note(f"the store does not have {', '.join(damaged)} as it was written: `refold incidents` says what to do")
    if files:
        table(
            ("SEGMENT", "GENERATION", "STATE", "EVENTS", "FROM", "TO", "FILE"),
            [
                (
                    one.segment,
                    one.generation,
                    "written, not proved" if one.state == "written" and one.proved_at is None else one.state,
                    one.events,
                    one.first_ts,
                    one.last_ts,
                    one.location,
                )
                for one in files
            ],
            right=("GENERATION", "EVENTS"),
        )


def _show_verified(found: Verified) -> None:
    what = f"{counted(found.files, 'file')}, {counted(found.events, 'event')}, {found.bytes / _MIB:,.1f} MiB"
    if found.wrong:
        are = "is" if len(found.wrong) == 1 else "are"
        line(f"of {what}, {counted(len(found.wrong), 'file')} {are} not what was written:")
        table(("SEGMENT", "FILE", "FOUND"), [(one.segment, one.location, one.found) for one in found.wrong])
    elif not found.lacking:
        line(f"the archive is right: {what}")
    if found.lacking:
        line(f"no file that counts: {', '.join(found.lacking)}; `refold incidents` says what to do")
    if found.strangers:
        note(
            f"not in the manifest, because a copy of this database or its original may need them:"
            f" {counted(len(found.strangers), 'file')} of this claim, such as {', '.join(sorted(found.strangers)[:3])}"
        )


def _show_restored(found: Restored, *, dry_run: bool) -> None:
    if not found.slices and not found.created:
        line(f"{found.segment} is intact: there is nothing to restore")
        return
    lost = "its table is missing; " if found.created else ""
    if dry_run:
        line(f"{found.segment}: {lost}{counted(len(found.slices), 'slice')} would be restored from {found.location}")
        return
    line(
        f"{found.segment}: {lost}{counted(found.events, 'event')} restored in {counted(len(found.slices), 'slice')},"
        f" in the place of {found.removed:,}"
    )
    note("Run `refold reconcile` to audit the metrics that were kept while the log was damaged.")
