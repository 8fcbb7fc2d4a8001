"""`refold anomalies`: the series that are watched, what is unusual now, and muting."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import psycopg
import typer

from refold.cli.app import TRUST, app
from refold.cli.command_group import CommandGroup
from refold.cli.output import as_json, line, note, table
from refold.cli.session import READERS, AsJson, DatabaseUrl, session
from refold.errors import InputError
from refold.inspect.evidence import seen
from refold.store import series as store
from refold.store.incidents import inspects, open_incidents, readable, resolve

anomalies = CommandGroup(invoke_without_command=True)
app.add_typer(anomalies, name="anomalies", rich_help_panel=TRUST)

MUTING = "anomalies mute"
"""What resolves an incident of a series that somebody mutes."""

SeriesName = Annotated[
    str, typer.Argument(metavar="SERIES", help="Title or number of the series, from `refold anomalies`.")
]


@anomalies.callback()
def list_(ctx: typer.Context, json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """List the series that are watched, and what is unusual about them now.

    Workers count accepted events by action and by source, and columns of metrics that say `-- watch:`. Unusual is not
    wrong: metrics are what the log says, and an anomaly changes no data. A new series only learns for four weeks.

    \b
    Examples:
      refold anomalies
      refold anomalies --json
      refold anomalies mute action:purchase --until 2026-12-27
    """
    if ctx.invoked_subcommand is not None:
        return
    with session(database_url, READERS) as conn:
        store.insist_on_tables(conn)
        named = inspects(conn)
        known = store.every(conn, named=named)
        opened = readable(conn, kind="anomaly", open_only=True)
        (now,) = conn.execute("SELECT clock_timestamp()").fetchone() or (datetime.now(UTC),)
    if known and not named:
        note("names of series are shown only to a login that may act as refold_inspector")
    subjects: dict[int, list[str]] = {}
    for incident in opened:
        subjects.setdefault(store.number_of(incident.subject), []).append(
            seen("anomaly", incident.evidence) or incident.subject
        )
    told = [
        asdict(one)
        | {
            "title": one.title,
            "learns_until": one.learns_until if one.learns_until > now.date() else None,
            "unusual": subjects.get(one.series_id, []),
        }
        for one in known
        if one.kind != "old"
    ]
    if json:
        as_json(told)
        return
    if not told:
        note("no series yet: a worker begins to count when events come")
        return
    table(
        ("NUMBER", "SERIES", "SINCE", "STATE"),
        [(one["series_id"], one["title"], str(one["began_on"]), _state(one, now)) for one in told],
        right=("NUMBER",),
    )
    for one in told:
        for text in one["unusual"]:
            line(f"{one['series_id']}  unusual: {text}", "yellow")


@anomalies.command()
def mute(
    name: SeriesName,
    until: Annotated[datetime, typer.Option("--until", help="Time in UTC until which it opens no incident.")],
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Mute a series: it opens no incident until a time. Its open incidents end now.

    \b
    Example:
      refold anomalies mute action:purchase --until 2026-12-27
    """
    at = until.replace(tzinfo=UTC)
    with session(database_url, acts=True) as conn:
        one = _known(conn, name)
        (now,) = conn.execute("SELECT clock_timestamp()").fetchone() or (datetime.now(UTC),)
        if at <= now:
            raise InputError(f"{until} is over", remedy="Give a time that is to come.")
        with conn.transaction():
            store.mute(conn, one.series_id, at)
            for incident in open_incidents(conn, "anomaly"):
                if store.number_of(incident.subject) == one.series_id:
                    resolve(conn, "anomaly", incident.subject, by=MUTING, outcome={"because": "muted"})
    if json:
        as_json({"series": one.title, "muted_until": at})
    else:
        line(f"{one.title}: muted until {at:%Y-%m-%d %H:%M} UTC")


@anomalies.command()
def unmute(name: SeriesName, json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """Let a series that was muted open incidents again.

    \b
    Example:
      refold anomalies unmute action:purchase
    """
    with session(database_url, acts=True) as conn:
        one = _known(conn, name)
        store.mute(conn, one.series_id, None)
    if json:
        as_json({"series": one.title, "muted_until": None})
    else:
        line(f"{one.title}: not muted")


def _known(conn: psycopg.Connection, name: str) -> store.Series:
    store.insist_on_tables(conn)
    return store.known(conn, name)


def _state(one: dict[str, object], now: datetime) -> str:
    muted = one["muted_until"]
    if isinstance(muted, datetime) and muted > now:
        return f"muted until {muted:%Y-%m-%d %H:%M} UTC"
    if one["unusual"]:
        return "unusual"
    if one["learns_until"] is not None:
        return f"learning until {one['learns_until']}"
    return "in its band"
