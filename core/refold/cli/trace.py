"""`refold trace`: when an event, or the events of a trace, reached each metric."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from refold.cli.app import TRUST, app
from refold.cli.output import as_json, line, table
from refold.cli.session import INSPECTORS, AsJson, DatabaseUrl, session
from refold.prose import counted, duration

if TYPE_CHECKING:
    from refold.inspect.traces import Appended, Arrival

WIDTH = 32
"""Characters of a bar."""


@app.command(rich_help_panel=TRUST)
def trace(
    name: Annotated[str, typer.Argument(metavar="EVENT_ID|TRACE_ID", help="Id of an event, or of a sampled trace.")],
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Show when an event, or all events of a trace, reached each metric; no backend is needed.

    Recent moments are exact: the newest cursors of each build are kept. Of older ones, the table says by when the
    events had been applied, and how long half of the events took in that minute. A trace can be found if it was
    sampled, for `trace_days` of refold.settings; an event at any time.

    \b
    Examples:
      refold trace order-7-paid
      refold trace 4bf92f3577b34da6a3ce929d0e0e4736 --json
    """
    from refold.inspect.traces import look

    with session(database_url, INSPECTORS) as conn:
        found = look(conn, name)
    if json:
        as_json([asdict(one) for one in found])
        return
    for number, one in enumerate(found):
        if number:
            line()
        _show(one)


def _show(one: Appended) -> None:
    line(f"trace     {one.trace_id or 'none: it was not sampled, or that is too long ago'}")
    more = one.events - len(one.event_ids)
    line(f"events    {', '.join(one.event_ids)}{f' and {more:,} more' if more > 0 else ''}")
    span = f", by span {one.span_id}" if one.span_id else ""
    line(f"appended  {one.at.isoformat(sep=' ', timespec='milliseconds')}, {counted(one.events, 'event')}{span}")
    if not one.arrivals:
        line("no metric is live")
        return
    longest = max((arrival.seconds or 0.0 for arrival in one.arrivals), default=0.0)
    rows = [(arrival.projection, arrival.reads or "the log", bar(arrival, longest), when(arrival)) for arrival in
            one.arrivals]  # fmt: skip
    table(("METRIC", "READS", "", "WHEN"), rows, spare=("READS",))


def bar(arrival: Arrival, longest: float) -> str:
    """Return the way of the events as a bar; the slowest metric has the longest. Pure."""
    if arrival.seconds is None:
        return "?" if arrival.by else "…"
    length = round(arrival.seconds / longest * (WIDTH - 1)) if longest else 0
    return "─" * length + ("✕" if arrival.state == "dead letter" else "●")


def when(arrival: Arrival) -> str:
    """Return when the events were applied, in words. Pure."""
    letter = ", dead letter" if arrival.state == "dead letter" else ""
    if arrival.seconds is not None:
        return f"+{duration(arrival.seconds)}{letter}"
    if arrival.by is None:
        return "a part so far" if arrival.state == "applying" else "not yet"
    typical = f"; half of the events took {duration(arrival.typical)} or less then" if arrival.typical else ""
    return f"by {arrival.by.isoformat(sep=' ', timespec='seconds')}{typical}{letter}"
