"""`refold status`: how far each metric is, and what holds it back."""

from __future__ import annotations

import time
from typing import Annotated

import psycopg
import typer
from rich.live import Live
from rich.text import Text

from refold.cli.app import TRUST, app
from refold.cli.output import as_json, capture, line, out, table
from refold.cli.session import AsJson, DatabaseUrl, session
from refold.status import BuildStatus, Holder, Status, read

OLD = 1.0
"""Seconds after which an open transaction is worth a line."""


@app.command(rich_help_panel=TRUST)
def status(
    watch: Annotated[
        float | None,
        typer.Option("--watch", "-w", min=0.2, metavar="SECONDS", help="Look again every so many seconds, until Ctrl-C."),
    ] = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Show every build: state, lag, freshness, rate; and the log, and what holds events back.

    LAG is in events of the log, BEHIND is how long the oldest of them has waited. RATE is events a second while
    pages were applied; with --watch, since the last look.

    \b
    Examples:
      refold status
      refold status --watch 2
      refold status --json
    """
    with session(database_url) as conn:
        if watch is None:
            now = read(conn)
            if json:
                as_json(now.as_dict())
            else:
                show(now)
        else:
            _watch(conn, watch, json=json)


def _watch(conn: psycopg.Connection, seconds: float, *, json: bool) -> None:
    before = read(conn)
    # In place on a terminal; elsewhere one block after the other.
    with Live(console=out, auto_refresh=False, screen=False) if out.is_terminal and not json else _Blocks() as live:
        while True:
            now = read(conn)
            rated = now.since(before)
            if json:
                as_json(rated.as_dict())
            elif isinstance(live, Live):
                live.update(Text.from_ansi(capture(lambda shown=rated: show(shown))), refresh=True)
            else:
                show(rated)
            before = now
            time.sleep(seconds)


class _Blocks:
    """Nothing to draw in place."""

    def __enter__(self) -> _Blocks:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def show(now: Status) -> None:
    """Prints a status for people."""
    if now.builds:
        table(
            ("PROJECTION", "TABLE", "STATE", "UPKEEP", "READS", "LAG", "BEHIND", "APPLIED", "RATE", "VIEWS"),
            [_build(build) for build in now.builds],
            right=("LAG", "BEHIND", "APPLIED", "RATE"),
        )
    else:
        line("no metrics yet: `refold deploy` makes them")
    line()
    about = "" if now.events_exact else "about "
    line(f"log       {about}{now.events:,} events, {now.segments} segments, {now.segments_ahead} of them ready ahead")
    line(f"workers   {now.workers}" + ("" if now.workers else " (`refold worker` starts one)"))
    if now.rejected:
        counts = ", ".join(f"{count:,} {answer}" for answer, count in now.rejected.items())
        line(f"set aside {counts} (`refold rejected` lists them)")
    for one in now.sessions:
        if one.seconds is None or one.seconds >= OLD:
            line(f"waiting   for session {_holder(one)}: its events count when it commits", "yellow")
    for one in now.prepared:
        line(f"waiting   for prepared transaction {_holder(one)}: COMMIT or ROLLBACK PREPARED", "yellow")


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
        build.lag_events,
        None if build.lag_seconds is None else _duration(build.lag_seconds),
        build.events_applied,
        None if build.rate is None else f"{build.rate:,.0f}/s",
        ", ".join([*(["itself"] if build.shown else []), *build.views]),
    )


def _state(build: BuildStatus) -> str:
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
