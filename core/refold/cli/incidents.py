"""`refold incidents`: faults with their start, detection, resolution, evidence and remedy; and taking one on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import psycopg
import typer

from refold.cli.app import FOUND, TRUST, app
from refold.cli.command_group import CommandGroup
from refold.cli.durations import span
from refold.cli.output import as_json, line, note
from refold.cli.session import READERS, AsJson, DatabaseUrl, session
from refold.errors import InputError
from refold.postgres.rows import one_row
from refold.prose import duration
from refold.store.incidents import KINDS, ONLY_NOTICED, REMEDIES, Incident, Kind, acknowledge, inspects, readable
from refold.suggest import did_you_mean

group = CommandGroup(invoke_without_command=True)
app.add_typer(group, name="incidents", rich_help_panel=TRUST)


@group.callback()
def incidents(
    ctx: typer.Context,
    open_only: Annotated[bool, typer.Option("--open", help="Only open incidents.")] = False,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help=f"Only incidents of one kind: {', '.join(KINDS)}.")
    ] = None,
    since: Annotated[
        str, typer.Option("--since", metavar="SPAN", help="Incidents open at some time in this span: 90m, 12h, 7d, 2w.")
    ] = "7d",
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if an incident is open.")] = False,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """List incidents: when each began, was detected and was resolved, with the evidence and what to do.

    Workers open incidents and resolve them. Open incidents come first. The exit status is 0, or with --exit-code 1 if
    an incident is open. Without a running worker no incident is opened: `refold doctor` and
    `refold status --exit-code` check the database themselves.

    \b
    Examples:
      refold incidents
      refold incidents --open
      refold incidents --open --exit-code
      refold incidents --kind held_back --since 30d --json
    """
    if ctx.invoked_subcommand is not None:
        return
    wanted = None if kind is None else known_kind(kind)
    within = span(since)
    with session(database_url, READERS) as conn:
        found = readable(conn, kind=wanted, open_only=open_only, within=within)
        now = _now(conn)
        evidence = inspects(conn)
    if found and not evidence:
        note("evidence and outcome are shown only to a login that may act as refold_inspector")
    if json:
        as_json([asdict(one) for one in found])
    elif found:
        show(found, now, open_only=open_only)
    else:
        line(f"no incident is open{'' if open_only else f', and none was open in the last {since}'}")
    if exit_code and any(one.resolved_at is None for one in found):
        raise typer.Exit(FOUND)


@group.command()
def ack(
    number: Annotated[int, typer.Argument(metavar="ID", help="Number of the incident, from `refold incidents`.")],
    note_: Annotated[
        str | None, typer.Option("--note", metavar="TEXT", help="What you know or do; recorded.", show_default=False)
    ] = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Take on an open incident, so that others see that a person works on it.

    The note stands in refold.actions. Who took the incident on first stays; nothing else changes.

    \b
    Example:
      refold incidents ack 12 --note "the projection is being corrected"
    """
    from refold.store.actions import recorded

    given = {"number": number} | ({"note": note_} if note_ else {})
    with session(database_url) as conn, recorded(conn, "incidents ack", given, incident_id=number):
        found = acknowledge(conn, number)
        if found is None:
            raise InputError(
                f"no incident with the number {number} is open",
                remedy="`refold incidents --open` lists those that are.",
            )
    if json:
        as_json(asdict(found))
        return
    line(f"{found.incident_id}  {found.kind}  {found.subject}: taken on by {found.acknowledged_by}")


def known_kind(kind: str) -> Kind:
    """Return a kind of incident by its name.

    Raises:
        InputError: no kind has that name.
    """
    name = kind.replace("-", "_")
    for known in KINDS:
        if known == name:
            return known
    raise InputError(
        f"no kind of incident is called {kind}.{did_you_mean(name, KINDS)}", remedy=f"Kinds: {', '.join(KINDS)}."
    )


def show(found: Sequence[Incident], now: datetime, *, open_only: bool = False) -> None:
    """Print incidents: their number, each with its evidence, open ones first, and the remedies of the open ones.

    Args:
        found: the incidents.
        now: time of the database.
        open_only: whether only open ones were asked for.
    """
    from refold.inspect.evidence import done, seen

    opened = [one for one in found if one.resolved_at is None]
    line(f"{len(opened):,} open" + ("" if open_only else f", {len(found) - len(opened):,} resolved"))
    for one in sorted(found, key=lambda one: one.resolved_at is not None):
        line()
        line(f"{one.incident_id}  {one.kind}  {one.subject}  {_over(one, now)}", "" if one.resolved_at else "red")
        line(f"    {_times(one)}")
        if one.acknowledged_by is not None:
            line(f"    taken on by {one.acknowledged_by}")
        for name, text in (("seen", seen(one.kind, one.evidence)), ("done", done(one.kind, one.outcome or {}))):
            if text:
                line(f"    {name}: {text}")
    if opened:
        line()
    for kind in KINDS:
        if any(one.kind == kind for one in opened):
            line(f"{kind}: {REMEDIES[kind]}", "yellow")


def _over(one: Incident, now: datetime) -> str:
    if one.resolved_at is None:
        return "open for " + duration((now - one.started_at).total_seconds())
    return f"resolved after {duration((one.resolved_at - one.started_at).total_seconds())}, by {one.resolved_by}"


def _times(one: Incident) -> str:
    began = f"{one.started_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if one.kind in ONLY_NOTICED:
        return f"detected {began}, by {one.detected_by}"
    after = duration((one.detected_at - one.started_at).total_seconds())
    return f"since {began}, detected after {after}, by {one.detected_by}"


def _now(conn: psycopg.Connection) -> datetime:
    row = one_row(conn, "SELECT now()")
    at: datetime = row[0]
    return at
