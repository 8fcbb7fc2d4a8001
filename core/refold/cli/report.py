"""`refold report`: events, latencies and incidents of a time span, in numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from refold.cli.app import TRUST, app
from refold.cli.durations import span
from refold.cli.output import as_json, line, table
from refold.cli.session import READERS, AsJson, DatabaseUrl, session
from refold.prose import counted, duration

if TYPE_CHECKING:
    from refold.inspect.report import ActivityReport
    from refold.inspect.toil import Toil


@app.command(rich_help_panel=TRUST)
def report(
    since: Annotated[
        str, typer.Option("--since", metavar="SPAN", help="Time span up to now: 90m, 12h, 7d, 2w.")
    ] = "7d",
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Report a time span in numbers: events, duplicates, latencies, incidents with duration, healed rows.

    The stage `waiting` runs from the start of an event's transaction to the start of its page, `applying` is the time
    of the page, and `fresh` runs from the start of the transaction until the event can be queried. Latencies are
    exact to 2 %.

    \b
    Examples:
      refold report
      refold report --since 24h
      refold report --since 30d --json
    """
    from refold.inspect.report import report as figures

    length = span(since)
    with session(database_url, READERS) as conn:
        found = figures(conn, length)
    if json:
        as_json(found.as_dict())
    else:
        show(found)


def show(found: ActivityReport) -> None:
    """Print a report as text."""
    line(f"from {found.since:%Y-%m-%d %H:%M:%S} to {found.until:%Y-%m-%d %H:%M:%S} UTC")
    line()
    about = "" if found.events_exact else "about "
    line(f"events        {about}{found.events:,} accepted")
    line(f"duplicates    {found.duplicates:,} refused, {found.duplicate_rate:.1%} of all received")
    line(f"rejected      {counted(found.conflicts, 'conflict')}, {found.invalid:,} invalid")
    line(f"healed        {counted(found.healed, 'row')}")
    line(f"dead letters  {found.dead_letters:,} waiting now")
    line()
    if found.latencies:
        table(
            ("METRIC", "STAGE", "EVENTS", "P50", "P95", "P99"),
            [
                (one.projection, one.stage, one.events, duration(one.p50), duration(one.p95), duration(one.p99))
                for one in found.latencies
            ],
            right=("EVENTS", "P50", "P95", "P99"),
        )
    else:
        line("no latencies: no worker applied an event in this time")
    line()
    if found.incidents:
        table(
            ("INCIDENTS", "NUMBER", "OPEN", "TO DETECT", "TO RECOVER"),
            [
                (
                    one.kind,
                    one.number,
                    one.still_open,
                    None if one.to_detect is None else duration(one.to_detect),
                    None if one.to_recover is None else duration(one.to_recover),
                )
                for one in found.incidents
            ],
            right=("NUMBER", "OPEN", "TO DETECT", "TO RECOVER"),
        )
    else:
        line("no incidents")
    line()
    _show_toil(found.toil)


def _show_toil(toil: Toil) -> None:
    """Print what incidents and commands took of people's time."""
    line(
        f"toil          {toil.hours:.1f} h hands-on in incidents that repeat, {toil.work_hours:.1f} h in others"
        + (f"; {toil.priced_hours:.1f} h of both by a price" if toil.priced_hours else "")
    )
    each = [
        f"{value:.2f} h per {of}"
        for value, of in (
            (toil.hours_per_million_events, "million events"),
            (toil.hours_per_100_projections, "100 projections"),
        )
        if value is not None
    ]
    if each:
        line(f"              {', '.join(each)}")
    line(f"interrupts    {toil.interrupts:,}")
    if toil.autonomy is not None:
        line(f"autonomy      {toil.autonomy:.1%} of the incidents that ended did so without anybody")
    for who, times in (("machine", toil.machine), ("person", toil.person)):
        if times.recover is not None and times.recover_p95 is not None:
            line(
                f"by {who:<10} {counted(times.incidents, 'incident')}, over after {duration(times.recover)} (median),"
                f" {duration(times.recover_p95)} (p95)"
            )
