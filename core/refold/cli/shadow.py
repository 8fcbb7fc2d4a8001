"""`refold shadow`: what a transform's changed function would make of the events."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from refold.cli.app import DRIFT, METRICS, app
from refold.cli.durations import span
from refold.cli.output import as_json, line, table
from refold.cli.session import EVIDENCE, AsJson, DatabaseUrl, Projections, folder, session
from refold.prose import counted

if TYPE_CHECKING:
    from refold.inspect.shadow import Shadow, ShadowSample

NULL = "NULL"


@app.command(rich_help_panel=METRICS)
def shadow(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A live transform.")],
    events: Annotated[int, typer.Option("--events", min=1, help="About how many events to take.")] = 20_000,
    since: Annotated[str | None, typer.Option("--since", metavar="SPAN", help="Only events since then: 7d.")] = None,
    sample: Annotated[int, typer.Option("--sample", min=0, help="Most rows of each kind to show.")] = 5,
    projections: Projections = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Run a transform's changed function over a sample of events, beside its live rows.

    The sample has the oldest and the newest events of each action that the live build has applied. The command only
    reads: it makes no table. It runs the file that is here, whether it was deployed or not.

    Exit status: 0 the rows are the same, 1 they differ or the function fails, 2 an error.

    \b
    Examples:
      refold shadow enriched_events
      refold shadow enriched_events --events 100000 --since 30d --json
    """
    from refold.inspect.shadow import shadow as shadowed

    with session(database_url, EVIDENCE) as conn:
        found = shadowed(
            conn,
            folder(projections),
            name,
            events=events,
            since=None if since is None else datetime.now(UTC) - span(since),
            samples=sample,
        )
    if json:
        as_json(asdict(found) | {"same": found.same})
    else:
        _show(found)
    if not found.same:
        raise typer.Exit(DRIFT)


def _show(found: Shadow) -> None:
    line(f"{found.metric}: the file here against {found.table}, over {counted(found.events, 'event')}", "bold")
    rows = found.rows
    line(
        f"rows: {rows.get('identical', 0):,} identical, {rows.get('modified', 0):,} modified,"
        f" {rows.get('added', 0):,} added, {rows.get('removed', 0):,} removed; {rows.get('raised', 0):,} events raised"
    )
    for title, names in (("new fields", found.new_fields), ("fields that are gone", found.gone_fields)):
        if names:
            line(f"{title}: {', '.join(names)}")
    if found.function_us is not None:
        live = "" if found.live_us is None else f"; a page of the live build takes {found.live_us:,.0f} µs for an event"
        line(f"the function takes {found.function_us:,.0f} µs for an event{live}")
    if found.fields:
        line()
        table(("FIELD", "ROWS THAT DIFFER"), list(found.fields.items()), right=("ROWS THAT DIFFER",))
    if found.samples:
        line()
        table(("ROW", "ID", "LIVE → FILE"), [(one.kind, one.row_id, _told(one)) for one in found.samples])
    line()
    line("The same." if found.same else "They differ.", "" if found.same else "bold red")


def _told(one: ShadowSample) -> str:
    if one.error is not None:
        return one.error
    before, after = one.before or {}, one.after or {}
    if one.kind != "modified":
        return "  ".join(f"{name}={_value(value)}" for name, value in (before or after).items())
    return "  ".join(f"{name} {_value(before[name])} → {_value(after[name])}" for name in before)


def _value(value: str | None) -> str:
    return NULL if value is None else value
