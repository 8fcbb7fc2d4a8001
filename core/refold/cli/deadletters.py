"""`refold deadletters`: list, retry or drop events that a build could not process."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import psycopg
import typer

from refold.cli.app import FAILED, TRUST, app
from refold.cli.bars import progress
from refold.cli.command_group import CommandGroup
from refold.cli.output import as_json, block, line, note, plain, table, text_of
from refold.cli.session import INSPECTORS, AsJson, DatabaseUrl, Projections, folder, session
from refold.errors import InputError
from refold.model.event.exact_json import document
from refold.visible import visible_json

if TYPE_CHECKING:
    from refold.engine.reconcile.release import Outcome
    from refold.store.builds.dead_letters import DeadLetter

LEFT = 1
"""Exit status of `retry` when an event failed again."""

deadletters = CommandGroup(
    no_args_is_help=True,
    help="List, retry or drop dead letters: events that a projection could not process.",
)
app.add_typer(deadletters, name="deadletters", rich_help_panel=TRUST)

Which = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ID|NAME…]", help="Ids of dead letters, or projections.", show_default=False),
]


@deadletters.command("list")
def list_(
    which: Which = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Include released and dropped ones, and those of superseded builds.")
    ] = False,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """List the events that projections excluded because of an error.

    The other events of the page were applied. A dead letter waits, with its error, until an operator retries or drops
    it. BUILD says whether the build is live: the metric misses the events that its live build leaves out.

    \b
    Examples:
      refold deadletters list
      refold deadletters list event_counts --json
    """
    with session(database_url, INSPECTORS) as conn:
        chosen = _chosen(conn, which, waiting=not everything)
    if json:
        as_json([asdict(letter) for letter in chosen])
        return
    if not chosen:
        line("no dead letters")
        return
    table(
        ("ID", "PROJECTION", "BUILD", "EVENT", "STATE", "ATTEMPTS", "SINCE", "ERROR"),
        [
            (str(one.dead_letter_id), one.projection, one.build_state, one.event_id, one.state, one.attempts, 
             one.first_failed_at, one.error)
            for one in chosen
        ],
        right=("ATTEMPTS",),
        spare=("ATTEMPTS", "SINCE", "STATE"),
    )  # fmt: skip
    candidates = sorted({one.projection for one in chosen if one.build_state == "building"})
    if candidates:
        note(f"left out by builds that are not live: of {', '.join(candidates)}. No live metric misses events by them")


@deadletters.command()
def show(
    letter: Annotated[int, typer.Argument(metavar="ID", help="Id of the dead letter, from `list`.")],
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Show one dead letter with its event, the error and the traceback.

    \b
    Example:
      refold deadletters show 7
    """
    from refold.postgres.rows import exact
    from refold.store.builds.dead_letters import letters

    with session(database_url, INSPECTORS) as conn:
        [one] = _chosen(conn, [str(letter)], waiting=False)
        waits = bool(letters(conn, waiting=True, numbers=[letter]))
        event = (
            exact(conn.cursor())
            .execute(
                "SELECT to_jsonb(e) - 'txid' - 'position' FROM refold.events AS e"
                " WHERE e.txid = %s::text::xid8 AND e.position = %s"
                # Copied before it was purged from the log.
                " UNION ALL SELECT event - 'txid' - 'position' FROM refold.dead_letters"
                " WHERE dead_letter_id = %s AND event IS NOT NULL LIMIT 1",
                (str(one.txid), one.position, one.dead_letter_id),
            )
            .fetchone()
        )
    found = asdict(one) | {"event": None if event is None else event[0]}
    if json:
        as_json(found)
        return
    line(f"{one.projection} could not process event {one.event_id}: {one.error}")
    line()
    for name, value in found.items():
        if value is not None and name not in ("traceback", "projection", "event_id", "error", "event"):
            line(f"{name:<16}{text_of(value) if isinstance(value, datetime) else value}")
    line()
    line("the event" if event is not None else "the event is no longer in the log")
    if event is not None:
        block(visible_json(document(event[0], plain, indent=2)))
    if one.traceback is not None:
        line()
        block(one.traceback.rstrip())
    if waits:
        line()
        line(f"After you fix the cause: refold deadletters retry {one.dead_letter_id}")
    elif one.state == "waiting":
        line()
        line(
            f"Nothing to retry: its build {one.table_name} was superseded, and the live one has tried the event itself."
        )


@deadletters.command()
def retry(
    which: Which = None,
    everything: Annotated[bool, typer.Option("--all", help="Retry all waiting dead letters.")] = False,
    projections: Projections = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Retry dead letters after their cause was fixed.

    Each event is applied once, to its projection and to everything that reads it, in one transaction. An event that
    fails again keeps waiting, with the new error.

    Exit status: 0 all were released, 1 some failed again, 2 the command failed.

    \b
    Examples:
      refold deadletters retry 7 8
      refold deadletters retry event_counts
      refold deadletters retry --all
    """
    from refold.engine.reconcile.release import release
    from refold.store.builds.compiled import Compiler

    if not which and not everything:
        raise InputError("no dead letters are named", remedy="Give ids or projections, or --all.")
    outcomes: list[Outcome] = []
    with session(database_url, acts=True) as conn, progress() as bars:
        chosen = _chosen(conn, which, waiting=True)
        compiler = Compiler(folder(projections, quiet=True))
        task = bars.add_task("retrying", total=len(chosen), note="")
        for letter in chosen:
            outcomes.append(release(conn, compiler, letter))
            failed = sum(one.answer == "failed" for one in outcomes)
            bars.update(task, advance=1, note=f"{failed:,} failed again")
    if json:
        as_json(
            [
                {"dead_letter_id": one.letter.dead_letter_id, "projection": one.letter.projection,
                 "event_id": one.letter.event_id, "answer": one.answer, "error": one.error}
                for one in outcomes
            ]
        )  # fmt: skip
    else:
        for one in outcomes:
            if one.answer != "released":
                line(f"{one.answer}  {one.letter.dead_letter_id} {one.letter.projection} {one.letter.event_id}"
                     f"{': ' + one.error if one.error else ''}")  # fmt: skip
        line(f"{sum(one.answer == 'released' for one in outcomes):,} of {len(outcomes):,} released")
    if any(one.answer == "failed" for one in outcomes):
        raise typer.Exit(LEFT)


@deadletters.command()
def drop(
    which: Annotated[list[str], typer.Argument(metavar="ID|NAME…", help="Ids of dead letters, or projections.")],
    reason: Annotated[str, typer.Option("--reason", help="Reason for dropping them; recorded with user and time.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List them, and drop none.")] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Drop dead letters. Their events stay in the log, and stay excluded from the metric.

    A rebuild of the projection tries the events again.

    \b
    Example:
      refold deadletters drop 7 --reason "a test order, amount was text"
    """
    from refold.engine.reconcile.release import drop as drop_letter

    if not reason.strip():
        raise InputError("the reason is empty", remedy="Say in a few words why the metric may exclude these events.")
    with session(database_url, acts=True) as conn:
        chosen = _chosen(conn, which, waiting=True)
        if dry_run:
            for letter in chosen:
                line(f"would drop  {letter.dead_letter_id} {letter.projection} {letter.event_id}: {letter.error}")
            return
        dropped = sum(drop_letter(conn, letter, reason) for letter in chosen)
    line(f"{dropped:,} dropped")
    if dropped < len(chosen):
        raise typer.Exit(FAILED)


def _chosen(conn: psycopg.Connection, which: list[str] | None, *, waiting: bool) -> list[DeadLetter]:
    """Return the dead letters that the user named.

    Raises:
        InputError: no dead letter has that id.
        BuildError: no projection of that name is live.
    """
    from refold.store.builds.build import live_builds
    from refold.store.builds.dead_letters import letters
    from refold.store.builds.lookup import known

    if not which:
        return letters(conn, waiting=waiting)
    numbers = [int(one) for one in which if one.isdecimal()]
    names = [one for one in which if not one.isdecimal()]
    live = {build.projection: build for build in live_builds(conn)}
    for name in names:
        known(name, live)
    found = letters(conn, waiting=waiting, numbers=numbers, projections=names)
    missing = set(numbers) - {letter.dead_letter_id for letter in found}
    if missing:
        everything = letters(conn, numbers=numbers, projections=names)
        raise _unknown(missing, {letter.dead_letter_id: letter for letter in everything})
    return found


def _unknown(missing: Collection[int], known_letters: Mapping[int, DeadLetter]) -> InputError:
    """Return the error for ids that are not among the waiting dead letters."""
    ended = [known_letters[number] for number in sorted(missing) if number in known_letters]
    if ended:
        told = ", ".join(
            f"{letter.dead_letter_id} is {letter.state}"
            if letter.state != "waiting"
            else f"{letter.dead_letter_id} belongs to a superseded build"
            for letter in ended
        )
        return InputError(f"no longer waiting: {told}", remedy="`refold deadletters list` shows the waiting ones.")
    return InputError(
        f"no such dead letter: {', '.join(map(str, sorted(missing)))}",
        remedy="`refold deadletters list --all` shows all of them.",
    )
