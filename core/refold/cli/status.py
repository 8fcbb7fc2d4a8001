"""`refold status`: how far each metric is, and what holds it back."""

from __future__ import annotations

import time
from typing import Annotated

import psycopg
import typer

from refold.cli.app import TRUST, app
from refold.cli.output import as_json, line, out, table
from refold.cli.session import READERS, AsJson, DatabaseUrl, session
from refold.status import COUNTED, BuildStatus, Holder, Status, read

OLD = 1.0
"""Seconds after which an open transaction is worth a line."""


@app.command(rich_help_panel=TRUST)
def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again and again, until Ctrl-C.")] = False,
    every: Annotated[
        float, typer.Option("--every", min=0.1, metavar="SECONDS", help="Time between two looks of --watch.")
    ] = 2.0,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Show every build: state, lag, freshness, rate; and the log, and what holds events back.

    LAG is in events of the log (up to 500 are counted, ~ means about), BEHIND is how long the oldest has waited. RATE
    is events a second while pages were applied; with --watch, since the last look.

    \b
    Examples:
      refold status
      refold status --watch
      refold status --json
    """
    with session(database_url, READERS) as conn:
        if watch:
            _watch(conn, every, json=json)
        else:
            _print(read(conn), json=json)


def _watch(conn: psycopg.Connection, every: float, *, json: bool) -> None:
    before = read(conn)
    while True:
        time.sleep(every)
        now = read(conn)
        if out.is_terminal and not json:
            out.clear()
        _print(now.since(before), json=json)
        before = now


def _print(now: Status, *, json: bool) -> None:
    if json:
        as_json(now.as_dict())
    else:
        show(now)


def show(now: Status) -> None:
    """Prints a status for people."""
    if now.builds:
        table(
            ("PROJECTION", "TABLE", "STATE", "UPKEEP", "READS", "LAG", "BEHIND", "APPLIED", "RATE", "VIEWS"),
            [_build(build) for build in now.builds],
            right=("LAG", "BEHIND", "APPLIED", "RATE"),
            spare=("VIEWS", "UPKEEP", "READS", "RATE", "APPLIED", "TABLE"),
        )
    else:
        line("no metrics yet: `refold deploy` makes them")
    line()
    about = "" if now.events_exact else "about "
    line(f"log       {about}{now.events:,} events, {now.segments} segments, {now.segments_ahead} of them ready ahead")
    line(f"workers   {now.workers}" + ("" if now.workers else " (`refold worker` starts one)"))
    if now.incidents:
        counts = ", ".join(f"{count:,} {kind}" for kind, count in now.incidents.items())
        line(f"incidents {counts} open (`refold incidents --open` has the evidence)", "red")
    for build in now.builds:
        if build.error:
            line(f"failing   {build.table}: {build.error}", "red")
        if build.dead_letters:
            events = "event" if build.dead_letters == 1 else "events"
            line(
                f"left out  {build.dead_letters:,} {events} by {build.projection} (`refold deadletters list`)", "yellow"
            )
    if now.rejected:
        counts = ", ".join(f"{_counted(count)} {answer}" for answer, count in now.rejected.items())
        line(f"set aside {counts} (`refold rejected` lists them)")
    for one in now.sessions:
        if one.seconds is None or one.seconds >= OLD:
            line(f"waiting   for session {_holder(one)}: its events count when it commits", "yellow")
    for one in now.prepared:
        line(f"waiting   for prepared transaction {_holder(one)}: COMMIT or ROLLBACK PREPARED", "yellow")


def _counted(number: int) -> str:
    return f"{number:,}" if number <= COUNTED else f"more than {COUNTED:,}"


def _holder(one: Holder) -> str:
    age = "of unknown age" if one.seconds is None else f"open for {_duration(one.seconds)}"
    return f"{one.name} ({one.what or 'unnamed'}), {age}"


def _build(build: BuildStatus) -> tuple[object, ...]:
    return (
        build.projection,
        build.table,
        _state(build),
        build.upkeep,
        build.reads,
        build.lag_events if build.lag_exact is not False else f"~{build.lag_events:,}",
        None if build.lag_seconds is None else _duration(build.lag_seconds),
        build.events_applied,
        None if build.rate is None else f"{build.rate:,.0f}/s",
        _views(build),
    )


def _views(build: BuildStatus) -> str:
    """Whether analysts see it, and how much stands on it; --json has the names."""
    if not build.shown:
        return ""
    return "itself" + (f" + {len(build.views)}" if build.views else "")


def _state(build: BuildStatus) -> str:
    if build.error:
        return f"{build.state}, failed"
    if build.loaded:
        return build.state if build.state == "live" or build.promotes else "waits for promote"
    steps = f"/{build.load_steps}" if build.load_steps else ""
    return f"loading, step {build.load_step + 1}{steps}"


def _duration(seconds: float) -> str:
    """A time span in the unit that one reads easily."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
