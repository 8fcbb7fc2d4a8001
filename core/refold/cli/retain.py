"""`refold retain`: how long the rows of a metric are kept."""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Annotated

import psycopg
import typer

from refold.cli.app import METRICS, app
from refold.cli.confirm import confirm
from refold.cli.output import as_json, line, note, table
from refold.cli.session import READERS, AsJson, DatabaseUrl, session
from refold.errors import InputError
from refold.prose import counted

if TYPE_CHECKING:
    from refold.engine.retain.policy import Keeping, Wish

_SPAN = re.compile(r"([1-9]\d{0,5}) *(d|w|days?|weeks?|months?|years?)")
_UNITS = {"d": "days", "w": "weeks"}
LONGEST = {"day": 36_525, "week": 5_200, "month": 1_200, "year": 100}


@app.command(rich_help_panel=METRICS)
def retain(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A metric with a day in its key.", show_default=False)
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option("--keep", metavar="SPAN", help="Keep the rows of so many days: 400d, '400 days' or '2 years'."),
    ] = None,
    keep_from: Annotated[
        str | None, typer.Option("--from", metavar="DAY", help="Keep the rows from this day on, such as 2025-01-01.")
    ] = None,
    forever: Annotated[bool, typer.Option("--forever", help="Keep all rows from the next rebuild on.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show which rows would go, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Let rows go without asking.")] = False,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Say how long the rows of a metric are kept, and let older ones go; without NAME, list what is kept.

    The metric then equals its query over the events of the days that it keeps. Audits, repairs and rebuilds keep to
    that, and an event that comes late for a day that is gone changes nothing. The log keeps all events. With --keep,
    workers let another day go each day.

    The key needs a day, hour, week, month or year of ts in UTC: what is older goes, and of a month that has begun to be
    old everything stays. Rows of streams stay, because what reads them reads them again.

    Rows that are gone come back with --forever and a rebuild.

    Exit status: 0 done, 1 not confirmed, 2 refused.

    \b
    Examples:
      refold retain
      refold retain event_counts --keep '400 days' --dry-run
      refold retain event_counts --from 2025-01-01
      refold retain event_counts --forever
    """
    from refold.engine.retain.policy import Wish

    chosen = [option for option, value in (("--keep", keep), ("--from", keep_from), ("--forever", forever)) if value]
    if name is None:
        if chosen or dry_run or yes:
            raise InputError(f"{(chosen or ['this option'])[0]} needs the NAME of a metric", remedy="Add it.")
        with session(database_url, READERS) as conn:
            _list(conn, json=json)
        return
    if len(chosen) != 1:
        raise InputError(
            f"{' and '.join(chosen)} exclude each other" if chosen else "it is not said how long rows are kept",
            remedy="Give one of --keep SPAN, --from DAY and --forever; `refold retain` lists what is kept.",
        )
    wish = Wish(None if keep is None else interval(keep), None if keep_from is None else _day(keep_from))
    with session(database_url, acts=not dry_run) as conn:
        if wish.all:
            _keep_all(conn, name, dry_run=dry_run, json=json)
        else:
            _retain(conn, name, wish, dry_run=dry_run, yes=yes, json=json)


def interval(text: str) -> str:
    """Return a span of days, weeks, months or years as an SQL interval.

    Raises:
        InputError: the text is no such span.
    """
    match = _SPAN.fullmatch(text.strip())
    unit = "" if match is None else _UNITS.get(match[2], match[2])
    if match is None or int(match[1]) > LONGEST[unit.removesuffix("s")]:
        raise InputError(
            f"{text!r} is not a span of days",
            remedy="Write 400d, '400 days', '6 months' or '2 years', up to 100 years.",
        )
    return f"{int(match[1])} {unit}"


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"{text!r} is not a day", remedy="Write it like 2025-01-01.") from error


def _list(conn: psycopg.Connection, *, json: bool) -> None:
    from refold.engine.retain.policy import keeping

    found = keeping(conn)
    if json:
        as_json({"metrics": [_listed(one) for one in found]})
        return
    if not found:
        line("every metric keeps all its rows")
        return
    table(
        ("METRIC", "KEEPS", "ROWS FROM", "SET BY"),
        [
            (one.metric, "all, from the next rebuild on", one.kept_from, None)
            if one.wanted is None
            else (one.metric, one.wanted.words, one.kept_from, one.wanted.set_by)
            for one in found
        ],
        null="-",
    )


def _listed(one: Keeping) -> dict[str, object]:
    wanted = one.wanted
    return {
        "metric": one.metric,
        "keep": None if wanted is None else wanted.keep,
        "from": None if wanted is None else wanted.keep_from,
        "kept_from": one.kept_from,
        "set_by": None if wanted is None else wanted.set_by,
        "set_at": None if wanted is None else wanted.set_at,
    }


def _keep_all(conn: psycopg.Connection, name: str, *, dry_run: bool, json: bool) -> None:
    from refold.engine.retain.policy import keep_all

    found = keep_all(conn, name, dry_run=dry_run)
    if json:
        as_json({"metric": name, "keep": None, "from": None, "kept_from": found, "done": not dry_run})
        return
    line(f"{name} {'would keep' if dry_run else 'keeps'} all its rows")
    if found is not None:
        note(f"Its rows before {found} are gone: `refold rebuild {name}` brings them back.")


def _retain(conn: psycopg.Connection, name: str, wish: Wish, *, dry_run: bool, yes: bool, json: bool) -> None:
    from refold.engine.retain.let_go import let_go
    from refold.engine.retain.policy import leaving
    from refold.store import retentions
    from refold.store.builds.compiled import Compiler

    compiler = Compiler(None)
    plan = leaving(conn, compiler, name, wish)
    gone = None
    if not dry_run:
        if plan.rows and not yes:
            what = f"{counted(plan.rows, 'row')} of {plan.metric}, of {plan.first_day} to {plan.last_day},"
            confirm(
                f"Let {what} go?",
                piped=f"{what} would go, and stdin is not a terminal",
                remedy=f"Look with `refold retain {plan.metric} … --dry-run`, then add --yes.",
            )
        # First: if this process is killed, a worker goes on.
        retentions.put(conn, name, keep=wish.keep, keep_from=wish.keep_from)
        wanted = retentions.find(conn, name)
        assert wanted is not None
        gone = let_go(conn, compiler, wanted)
    if json:
        as_json(
            {
                "metric": name,
                "keep": wish.keep,
                "from": wish.keep_from,
                "kept_from": plan.kept_from,
                "slices": plan.slices,
                "rows": plan.rows if gone is None else gone,
                "first_day": plan.first_day,
                "last_day": plan.last_day,
                "done": not dry_run,
            }
        )
        return
    days = "" if plan.first_day is None else f", of {plan.first_day} to {plan.last_day}"
    rows = counted(plan.rows if gone is None else gone, "row")
    line(f"{name} {'would keep' if dry_run else 'keeps'} its rows from {plan.kept_from} on")
    line(f"{rows} {'would go' if dry_run else 'went'}{days}")
    if wish.keep is not None and not dry_run:
        note("Workers let what becomes older go each day.")
