"""`refold erase`: erase a person, and prove it."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from refold.cli.app import FOUND, TRUST, app
from refold.cli.bars import progress
from refold.cli.command_group import CommandGroup, Group
from refold.cli.confirm import confirm
from refold.cli.output import as_json, line, note, table
from refold.cli.session import INSPECTORS, AsJson, DatabaseUrl, Projections, folder, session
from refold.errors import InputError
from refold.prose import counted

if TYPE_CHECKING:
    from refold.engine.erasure.run import Found
    from refold.model.erasure import Person
    from refold.store.erasures import Erasure, Mode

BY = "refold erase"
NOBODY = "nobody with this id is known: nothing was found"


class _OrPerson(Group):
    """A group in which a first word that is no command is a person."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["person", *args]
        return super().parse_args(ctx, args)


group = CommandGroup(
    cls=_OrPerson,
    no_args_is_help=True,
    help="Erase a person: from the log, the metrics, refold's own tables and the archive, with a proof.",
)
app.add_typer(group, name="erase", rich_help_panel=TRUST)


@group.command("person")
def erase_person(
    person: Annotated[
        str | None, typer.Argument(metavar="[USER]", help="The user id, exactly as events have it.", show_default=False)
    ] = None,
    person_file: Annotated[
        str | None,
        typer.Option(
            "--user-file",
            metavar="FILE",
            help="Read the user id from a file, or - for stdin: it is in no list of processes then.",
            show_default=False,
        ),
    ] = None,
    mode: Annotated[
        str, typer.Option("--mode", metavar="MODE", help="anonymise: events stay, without the person. delete: they go.")
    ] = "anonymise",
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--also",
            metavar="FIELD=VALUE",
            help="A field of metadata by which events of others name the person; only the field changes.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep",
            metavar="FIELD",
            help="A field of the person's metadata that stays, besides refold.settings.erasure_keeps.",
            show_default=False,
        ),
    ] = None,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="Reason; recorded permanently.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count in every place; change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    projections: Projections = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Erase a person: from the log, the metrics, refold's own tables and the archive, with a proof.

    `refold erase USER` is short for `refold erase person USER`. An erasure cannot be undone.

    With anonymise, the user id becomes a random word, the same in all events of the person, and the metadata is
    emptied. With delete, the events go. Either way refold heals every metric that depends on them, and records by how
    much it changed. The ledger refuses the ids of these events for ever, and keeps nothing of what comes under them.
    Events that come later under other ids are new, and stay.

    Tables of retired builds are dropped, because a rollback would bring the person back. After a kill, run the command
    again. The login must be allowed to act as refold_owner.

    The id is taken exactly. If nobody with this id is known, the command says so: the proof is of a person without a
    trace, or of a typing error.

    Exit status: 0 erased and proved, 1 something of the person is left, 2 the command failed.

    \b
    Examples:
      refold erase u-4711 --dry-run
      refold erase u-4711 --reason "request 2026-118"
      refold erase u-4711 --also email=a@example.com --reason "request 118"
      refold erase --user-file - --mode delete --reason "request 119"
    """
    from refold.engine.erasure.run import erase, look

    chosen = _mode(mode)
    someone = _person(person, person_file, also or [])
    said = (reason or "").strip()
    if not dry_run and not said:
        raise InputError(
            "--reason is missing: an erasure cannot be undone",
            remedy='Give a reason (--reason "…"), or count first (--dry-run).',
        )
    with session(database_url, name=BY, acts=True) as conn:
        if dry_run or not yes:
            found = look(conn, someone)
            if dry_run:
                as_json(asdict(found)) if json else _show_found(found)
                return
            confirm(
                "Is the id right, and shall a proof say that nothing of it is left?"
                if found.nothing
                else "This cannot be undone. Continue?",
                piped="stdin is not a terminal, and an erasure needs confirmation",
                remedy="`refold erase … --dry-run` counts; `refold erase … --yes` erases.",
                show=lambda: _show_found(found),
            )
        where = folder(projections, quiet=True)
        with progress() as bars:
            task = bars.add_task("erasing", total=None, note="")
            done = erase(
                conn, where, someone, mode=chosen, keeps=keep or [], reason=said,
                progress=lambda step: bars.update(task, description=step),
            )  # fmt: skip
    _tell(done, json=json)


@group.command("list")
def list_erasures(json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """List the erasures: when each was asked for, how far it is, and why. No person is named.

    \b
    Examples:
      refold erase list
      refold erase list --json
    """
    from refold.store import erasure_notices, erasures

    with session(database_url, INSPECTORS) as conn:
        found = erasures.find(conn)
        notices = erasure_notices.of_erasures(conn)
    if json:
        as_json([_told(one) | {"webhooks": notices.get(one.erasure_id, [])} for one in found])
    elif not found:
        note("nobody was erased")
    else:
        table(
            ("ERASURE", "MODE", "REQUESTED", "BY", "STATE", "WEBHOOKS", "REASON"),
            [
                (
                    one.erasure_id,
                    one.mode,
                    one.requested_at,
                    one.requested_by,
                    _state(one),
                    _notices(notices.get(one.erasure_id, [])),
                    one.reason,
                )
                for one in found
            ],
            right=("ERASURE",),
        )


@group.command()
def show(
    number: Annotated[int, typer.Argument(metavar="ERASURE", help="Its number, as `refold erase list` shows it.")],
    database_url: DatabaseUrl = None,
) -> None:
    """Print the proof of an erasure as JSON, or what is known of one that is not finished.

    Exit status: 0 nothing of the person is left, 1 something is, or it is not finished, 2 there is no such erasure.

    \b
    Examples:
      refold erase show 1
      refold erase show 1 > proof.json
    """
    from refold.store import erasures

    with session(database_url, INSPECTORS) as conn:
        found = erasures.find(conn, "erasure_id = %s", number)
    if not found:
        raise InputError(f"there is no erasure {number}", remedy="`refold erase list` shows all.")
    [one] = found
    as_json(one.evidence.get("proof") or _told(one))
    if left(one) or one.finished_at is None:
        raise typer.Exit(FOUND)


@group.command()
def export(database_url: DatabaseUrl = None) -> None:
    """Print all erasures as JSON, for a database that is restored from a backup from before them.

    It names nobody: it has HMACs of user ids and event ids, whose key is in the database and its backups. Keep the file
    outside of them. With an archive you need none: its store has the same, and `refold recover` reads it.

    \b
    Examples:
      refold erase export > erasures.json
    """
    from refold.engine.erasure.again import export as exported

    with session(database_url) as conn:
        as_json(exported(conn))


@group.command()
def apply(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]",
            help="A file of `refold erase export`, or - for stdin. Default: the archive's store.",
            show_default=False,
        ),
    ] = None,
    projections: Projections = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Do erasures again that this database does not know, because it was restored from a backup from before them.

    `refold recover` does so with those of the archive's store. Erasures that are done here are left alone. The ledger
    refuses the ids of erased events that the backup does not have, too. The login must be allowed to act as
    refold_owner.

    Exit status: 0 done, 1 something of a person is left, 2 the command failed.

    \b
    Examples:
      refold erase apply
      refold erase apply erasures.json
    """
    from refold.engine.erasure.again import parsed
    from refold.engine.erasure.restored import apply as do_again
    from refold.engine.erasure.restored import recorded
    from refold.store.builds.compiled import Compiler

    with session(database_url, name=BY, acts=True) as conn, progress() as bars:
        contents = recorded(conn) if file is None else [parsed(_read(file))]
        if file is None and not contents:
            raise InputError(
                "the archive has no record of an erasure",
                remedy="Give the file of `refold erase export`, if there is one.",
            )
        compiler = Compiler(folder(projections, quiet=True))
        task = bars.add_task("erasing", total=None, note="")
        done = [
            one
            for content in contents
            for one in do_again(conn, compiler, content, progress=lambda step: bars.update(task, description=step))
        ]
    if json:
        as_json([one.evidence.get("proof") or _told(one) for one in done])
    else:
        line(f"{counted(len(done), 'erasure')} done again" if done else "this database knows all of them")
    if any(left(one) for one in done):
        raise typer.Exit(FOUND)


def left(erasure: Erasure) -> dict[str, int]:
    """Return the rows that still hold the person, by table, as they were counted at the end."""
    return {table: rows for table, rows in erasure.evidence.get("after", {}).items() if rows}


def _mode(given: str) -> Mode:
    modes: tuple[Mode, ...] = ("anonymise", "delete")
    for mode in modes:
        if given == mode:
            return mode
    from refold.suggest import did_you_mean

    raise InputError(
        f"there is no mode {given}.{did_you_mean(given, modes)}",
        remedy="--mode takes anonymise or delete.",
    )


def _person(given: str | None, file: str | None, also: list[str]) -> Person:
    """Return the person, whose name no message repeats."""
    from refold.model.erasure import Person, fields_given

    if (given is None) == (file is None):
        raise InputError("give one user id, or --user-file", remedy="`refold erase --help` has examples.")
    # The end of a line is an editor's; other blanks may be a part of it.
    user_id = given if file is None else _read(file).removesuffix("\n").removesuffix("\r")
    if not user_id:
        raise InputError(
            "the user id is empty: events without a user are nobody's",
            remedy="To remove what such events hold of a person, name the person with --also FIELD=VALUE.",
        )
    try:
        return Person(user_id, fields_given(also))
    except ValueError as error:
        raise InputError(str(error), remedy="For example: --also email=a@example.com") from error


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"the file cannot be read: {type(error).__name__}", remedy="Give a text file in UTF-8, or - for stdin."
        ) from error


def _show_found(found: Found) -> None:
    from refold.engine.erasure.purged import PLACE

    others = f", and {counted(found.mentions, 'event')} of others" if found.mentions else ""
    in_log = f"the log has {counted(found.events, 'event')} of this person{others}"
    if found.nothing:
        line(NOBODY)
    elif PLACE in found.rows:
        more = in_log if found.events or found.mentions else "the log has none"
        cold = counted(found.rows[PLACE], "event")
        line(f"purged segments, in the archive alone, have {cold} with this person; {more}")
    else:
        line(in_log)
    rows = sorted({**found.rows, **found.waiting}.items())
    if rows:
        table(("TABLE", "ROWS"), rows, right=("ROWS",))
    if found.retired:
        note(f"these tables of retired builds are dropped: {', '.join(found.retired)}")


def _tell(done: Erasure, *, json: bool) -> None:
    remaining = left(done)
    proof = done.evidence.get("proof", {})
    if json:
        as_json(proof or _told(done))
        if _of_nobody(proof):
            note(NOBODY)
    else:
        others = f", {counted(proof['mentions'], 'event')} of others" if proof.get("mentions") else ""
        erased = f"erased: {counted(proof.get('events', 0), 'event')} of the person{others}; {_changed(done)}"
        line(NOBODY if _of_nobody(proof) else erased)
        line(f"the proof has the SHA-256 {proof.get('sha256', '')}: `refold erase show {done.erasure_id}`")
        for what in proof.get("not_provable", ()):
            note(what)
    if remaining:
        note(f"rows that still hold the person: {', '.join(f'{name} {rows:,}' for name, rows in remaining.items())}")
        raise typer.Exit(FOUND)


def _of_nobody(proof: dict[str, Any]) -> bool:
    """Return whether an erasure has found nothing."""
    found = any(place["before"] for place in proof.get("places", {}).values()) or proof.get("waits_for_receivers")
    return bool(proof) and not (proof["events"] or proof["mentions"] or found)


def _changed(done: Erasure) -> str:
    metrics = done.evidence.get("metrics", {})
    return f"{', '.join(sorted(metrics))} healed" if metrics else "no metric changed"


def _notices(found: list[dict[str, Any]]) -> str:
    """Return how many webhooks have taken their notice of an erasure, in words."""
    if not found:
        return "none"
    refused = sum(one["taken"] is False for one in found)
    return f"{sum(bool(one['taken']) for one in found)} of {len(found)} told" + (
        f", {refused} refused" if refused else ""
    )


def _state(one: Erasure) -> str:
    if one.finished_at is not None:
        return "incomplete" if left(one) else "proved"
    return f"unfinished: {one.step}"


def _told(one: Erasure) -> dict[str, object]:
    return asdict(one) | {
        "name": str(one.name),
        "subject": one.subject.hex(),
        "macs": [mac.hex() for mac in one.macs],
        "state": _state(one),
    }
