"""`refold sinks skip`: letting go of what a sink of events has not delivered."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from refold.cli.builds import DryRun
from refold.cli.confirm import confirm
from refold.cli.output import as_json, line, note
from refold.cli.session import AsJson, DatabaseUrl, session
from refold.errors import InputError
from refold.prose import counted
from refold.store import sinks as store

if TYPE_CHECKING:
    from refold.sinks.skip import Row, Skip

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the sink: its file without .toml.")]


def skip(
    name: Name,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="PLACE",
            help="First position of the log that is not let go; or a time, for what the log took before (ISO 8601; UTC"
            " if there is no offset); or `now`.",
        ),
    ],
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="Why; recorded. Needed, but for a dry run.")
    ] = None,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Let go without asking.")] = False,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Let go of rows that a sink of grain events has not delivered, so that a purge of the log need not wait for it.

    The sink reads on from that place of its stream, and never from an earlier one. Rows before it are not delivered,
    nor those of them that the receiver refused. They stay in the metric: `refold sinks replay` gives all rows again.

    \b
    Examples:
      refold sinks skip crm --to 1048576 --dry-run
      refold sinks skip crm --to 2026-01-01 --reason "the receiver was replaced"
      refold sinks skip crm --to now --yes --reason "only new events count there"
    """
    from refold.sinks import skip as engine
    from refold.store.actions import recorded, tell

    place = _place(to)
    if reason is None and not dry_run:
        raise InputError("rows are let go for a reason", remedy="Give it with --reason, or look first with --dry-run.")
    with session(database_url) as conn:
        store.insist_on_tables(conn)
        sink = store.known(conn, name)
        found = engine.look(conn, sink, place)
        if dry_run or found.nothing:
            _show(found, sink, json=json, done=False)
            return
        if not yes:
            confirm(
                f"Let {_rows(found)} of {found.sink} go?",
                piped=f"{_rows(found)} would never be delivered, and stdin is not a terminal",
                remedy="Look at them with --dry-run, then add --yes.",
            )
        with recorded(conn, "sinks skip", {"name": name, "to": to, "reason": reason}) as action:

            def told(skip: Skip) -> None:
                action.outcome = f"{_rows(skip)} let go"
                tell(conn, action)

            found = engine.skip(conn, sink, found, reason or "", told)
    _show(found, sink, json=json, done=True)


def _place(text: str) -> int | datetime | None:
    from refold.cli.reconcile import instant

    if text == "now":
        return None
    if text.replace(",", "").isdecimal():
        return int(text.replace(",", ""))
    try:
        return instant(text)
    except InputError as error:
        raise InputError(
            f"--to {text}: not a position, a time or `now`", remedy="For example 1048576, 2026-01-31T12:00Z, now."
        ) from error


def _rows(found: Skip) -> str:
    refused = f", and {len(found.refused):,} that the receiver refused" if found.refused else ""
    return f"{counted(found.rows, 'row')}{refused}"


def _show(found: Skip, sink: store.Sink, *, json: bool, done: bool) -> None:
    if json:
        as_json(found.as_dict() | {"skipped": done})
        return
    if found.nothing:
        line(f"{found.sink}: nothing waits before {_there(found)}, and its cursor is not behind it")
        return
    line(f"{found.sink}: {_rows(found)} {'let go' if done else 'would be let go'}")
    for label, row in (("first", found.first), ("last", found.last)):
        if row is not None:
            line(f"  {label:<5}  {_row(row)}")
    if found.others:
        note(
            f"{counted(len(found.others), 'row')} behind {_there(found)} {'will' if done else 'would'} be delivered out"
            " of the stream's order: transactions that wrote before it wrote them, too"
        )
    if found.segments:
        line(f"a purge {'does' if done else 'would'} not wait for it any more in {', '.join(found.segments)}")
    if found.rows and not sink.once:
        note(
            "Whoever compares slices finds what is missing, and delivers it: `refold reconcile --sinks`, and another"
            " build of the metric."
        )


def _there(found: Skip) -> str:
    return "the end of its stream" if found.position is None else f"position {found.position:,}"


def _row(row: Row) -> str:
    when = "" if row.recorded_at is None else f", recorded {row.recorded_at:%Y-%m-%d %H:%M:%S} UTC"
    event = "" if row.event_id is None else f", event {row.event_id}"
    return f"position {row.position:,}{event}{when}"
