"""`refold contracts`: list, show, infer, report and check contracts of events."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from refold.cli.app import DATA, FOUND, app
from refold.cli.command_group import CommandGroup
from refold.cli.contract_plan import contract_change, contracts_of, show_contracts
from refold.cli.durations import span
from refold.cli.output import as_json, block, line, note, table
from refold.cli.session import INSPECTORS, AsJson, DatabaseUrl, own_folder, relative, session
from refold.errors import InputError, RefoldError, at_once
from refold.inspect import contracts as found
from refold.inspect.contracts import uncovered
from refold.model.contract.draft import draft
from refold.model.projection.upcast import events_beside
from refold.store import contracts as store
from refold.suggest import did_you_mean

contracts = CommandGroup(
    no_args_is_help=True, help="List, draft and check contracts, which say what the metadata of events must be."
)
app.add_typer(contracts, name="contracts", rich_help_panel=DATA)

OfAction = Annotated[
    str | None, typer.Option("--action", metavar="ACTION", help="Only this action.", show_default=False)
]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="SPAN", help="Time span up to now: 90m, 12h, 7d, 2w.", show_default=False),
]
Events = Annotated[
    int, typer.Option("--events", metavar="NUMBER", min=1, help="Newest events of the log that are looked at.")
]


@contracts.command("list")
def list_(json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """List the contracts with their levels, and what broke them within a day.

    \b
    Examples:
      refold contracts list
      refold contracts list --json
    """
    with session(database_url, INSPECTORS) as conn:
        listed = store.registered(conn)
        broken = found.violations(conn, since=span("1d"))
    counts = {key: sum(one.events for one in broken if (one.action, one.version) == key) for key in listed}
    if json:
        as_json(
            [
                {name: value for name, value in asdict(one).items() if name != "rules"} | {"violations": counts[key]}
                for key, one in listed.items()
            ]
        )
        return
    if not listed:
        note("no contract: `refold contracts infer` drafts one from the log; write it to events/ACTION.json")
        return
    table(
        ("ACTION", "VERSION", "LEVEL", "OWNER", "REGISTERED", "BROKEN"),
        [
            (one.action, one.version, one.level, one.about.get("owner"), one.registered_at, counts[key] or None)
            for key, one in listed.items()
        ],
        right=("VERSION", "BROKEN"),
    )


@contracts.command()
def show(
    action: Annotated[str, typer.Argument(metavar="ACTION", help="The action.")],
    version: Annotated[
        int | None, typer.Option("--version", metavar="NUMBER", help="Its version. Default: the newest.")
    ] = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Show what a contract says, rule by rule; with --json the registered schema.

    \b
    Examples:
      refold contracts show purchase
      refold contracts show purchase --version 1 --json
    """
    with session(database_url, INSPECTORS) as conn:
        listed = store.registered(conn)
    versions = [number for name, number in listed if name == action]
    if not versions:
        near = did_you_mean(action, {name for name, _ in listed})
        raise InputError(f"there is no contract for {action!r}.{near}", remedy="`refold contracts list` shows them.")
    chosen = max(versions) if version is None else version
    if chosen not in versions:
        raise InputError(
            f"there is no contract for version {chosen} of {action}",
            remedy=f"There is one for {', '.join(map(str, versions))}.",
        )
    one = listed[action, chosen]
    if json:
        as_json(one.schema)
        return
    line(f"{one.title}  {one.level}, registered {one.registered_at:%Y-%m-%d %H:%M:%S} UTC")
    for rule in one.rules:
        name = rule["name"] or "metadata"
        line(f"  {name} has no other fields" if rule["closed"] else f"  {name} must be {rule['must']}")


@contracts.command()
def infer(
    action: OfAction = None,
    since: Since = None,
    events: Events = found.EVENTS,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Draft contracts from the events in the log: fields, types, and values where they are few.

    With --action the draft of its newest version goes to stdout, as a file for events/. A person must read it: it says
    what events were, and not what they should be. With --json it is a list of drafts, of all actions and versions.

    \b
    Examples:
      refold contracts infer
      refold contracts infer --action purchase > events/purchase.json
      refold contracts infer --since 7d --json
    """
    with session(database_url, INSPECTORS) as conn:
        listed = store.registered(conn)
        seen = found.seen(conn, action=action, since=None if since is None else span(since), events=events)
        if action is not None and not seen:
            known = {one.action for one in found.seen(conn, events=events)}
            raise InputError(
                f"none of the events looked at has the action {action!r}.{did_you_mean(action, known)}",
                remedy="`refold contracts infer` lists the actions; --events looks at more.",
            )
    if json:
        as_json([draft(one) | {"x-events": one.events} for one in seen])
    elif action is not None:
        newest = seen[-1]
        note(f"from {newest.events:,} events of version {newest.version}; read it before you deploy it")
        block(_written(draft(newest)))
    else:
        table(
            ("ACTION", "VERSION", "EVENTS", "CONTRACT", "FIELDS"),
            [
                (
                    one.action,
                    one.version,
                    one.events,
                    listed[one.action, one.version].level if (one.action, one.version) in listed else None,
                    ", ".join(one.names),
                )
                for one in seen
            ],
            right=("VERSION", "EVENTS"),
        )
        note("`refold contracts infer --action ACTION > events/ACTION.json` drafts one")


@contracts.command()
def report(
    action: OfAction = None,
    since: Since = None,
    events: Events = found.EVENTS,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Report what has no contract, and what broke one: actions and fields, by version, with first and last times.

    An event counts once, for the first rule of its contract that it breaks. It may break others, too.

    \b
    Examples:
      refold contracts report
      refold contracts report --action purchase --since 7d
    """
    length = None if since is None else span(since)
    with session(database_url, INSPECTORS) as conn:
        listed = store.registered(conn)
        seen = found.seen(conn, action=action, since=length, events=events)
        broken = found.violations(conn, action=action, since=length)
    without = [one for one in seen if (one.action, one.version) not in listed]
    fields = {
        (one.action, one.version): names
        for one in seen
        if (one.action, one.version) in listed and (names := uncovered(one, listed[one.action, one.version]))
    }
    if json:
        as_json(
            {
                "without_contract": [
                    {"action": one.action, "version": one.version, "events": one.events, "first": one.first,
                     "last": one.last, "fields": one.names}
                    for one in without
                ],
                "fields_without_contract": [
                    {"action": name, "version": version, "fields": names}
                    for (name, version), names in fields.items()
                ],
                "violations": [asdict(one) for one in broken],
                "events": sum(one.events for one in seen),
            }
        )  # fmt: skip
        return
    line(f"{sum(one.events for one in seen):,} events looked at")
    if without:
        line()
        line("without a contract")
        table(
            ("ACTION", "VERSION", "EVENTS", "FIRST", "LAST"),
            [(one.action, one.version, one.events, one.first, one.last) for one in without],
            right=("VERSION", "EVENTS"),
        )
    if fields:
        line()
        line("fields that their contract does not name")
        table(
            ("ACTION", "VERSION", "FIELDS"),
            [(name, version, ", ".join(names)) for (name, version), names in fields.items()],
            right=("VERSION",),
        )
    if broken:
        line()
        line("violations")
        table(
            ("ACTION", "VERSION", "EVENTS", "", "FIRST", "LAST", "FOR EXAMPLE", "FIRST RULE THAT BROKE"),
            [
                (one.action, one.version, one.events, "refused" if one.refused else "counted", one.first_at,
                 one.last_at, one.event_id, one.rule)
                for one in broken
            ],
            right=("VERSION", "EVENTS"),
        )  # fmt: skip


@contracts.command()
def check(
    projections: Annotated[
        Path | None,
        typer.Option(
            "--projections",
            metavar="DIR",
            help="Folder of projections; contracts are in ../events. Default: ./projections.",
            show_default=False,
        ),
    ] = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Compare the contracts of the folder with those of the database; change nothing.

    Exit status: 0 they are the same, 1 a deploy would change something, 2 a deploy would be refused, or another error.

    \b
    Examples:
      refold contracts check
      refold contracts check --json
    """
    mistakes: list[RefoldError] = []
    folder = events_beside(own_folder(projections, starters=False))
    with session(database_url, INSPECTORS) as conn:
        changes = contracts_of(conn, relative(folder), mistakes)
    if mistakes:
        raise at_once(mistakes)
    if json:
        as_json([contract_change(one) for one in changes])
    else:
        show_contracts(changes)
    if any(one.makes for one in changes):
        raise typer.Exit(FOUND)


def _written(document: dict[str, Any]) -> str:
    import json

    return json.dumps(document, indent=2, ensure_ascii=False)
