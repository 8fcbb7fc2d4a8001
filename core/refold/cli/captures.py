"""`refold captures`: list, pause, resume, backfill and drop captures of tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import psycopg
import typer

from refold.cli.app import DATA, app
from refold.cli.builds import DryRun
from refold.cli.command_group import CommandGroup
from refold.cli.output import as_json, line, note, table
from refold.cli.session import READERS, AsJson, DatabaseUrl, session
from refold.prose import counted
from refold.store import captures as store
from refold.store.captures import STEP, Backfill, Capture, Gaps

captures = CommandGroup(
    no_args_is_help=True, help="List, pause, resume, backfill and drop captures: events from tables that are there."
)
app.add_typer(captures, name="captures", rich_help_panel=DATA)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the capture: its file without .toml.")]


@captures.command("list")
def list_(json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """List captures with their state, their backfill, and statements without events (gaps).

    \b
    Examples:
      refold captures list
      refold captures list --json
    """
    from refold.engine.capture import deploy as engine

    with session(database_url, READERS) as conn:
        store.insist_on_tables(conn)
        found = store.every(conn)
        gaps, filled = store.gaps(conn), store.backfills(conn)
        damage = {one.name: engine.differences(one, engine.current(conn, one)) for one in found}
    told = [_told(one, gaps.get(one.capture_id), filled.get(one.capture_id), damage[one.name]) for one in found]
    if json:
        as_json(told)
        return
    if not found:
        note("no capture: write captures/NAME.toml, and run `refold deploy`")
        return
    table(
        ("CAPTURE", "TABLE", "OPERATIONS", "STATE", "GAPS", "BACKFILL"),
        [
            (
                one["capture"],
                one["table"],
                one["operations"],
                one["state"],
                one["gaps"] or None,
                _words(one["backfill"]),
            )
            for one in told
        ],
        right=("GAPS",),
    )
    for one in told:
        if one["error"]:
            note(f"{one['capture']}: {one['error']}")


@captures.command()
def pause(name: Name, json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """Pause a capture: its table is written to without events.

    Each statement without events is recorded as a gap, which a later backfill closes.

    \b
    Examples:
      refold captures pause orders
    """
    with session(database_url, "refold_capture", acts=True) as conn:
        changed = store.pause(conn, _known(conn, name))
    _tell_state(name, "paused", changed, json)


@captures.command()
def resume(name: Name, json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """Resume a capture that was paused, or that paused because the log could not take an event.

    \b
    Examples:
      refold captures resume orders && refold captures backfill orders
    """
    with session(database_url, "refold_capture", acts=True) as conn:
        capture = _known(conn, name)
        gaps = store.gaps(conn).get(capture.capture_id)
        changed = store.resume(conn, capture)
    _tell_state(name, "resumed", changed, json)
    if gaps is not None and gaps.statements and not json:
        added = f"`refold captures backfill {name}` adds the rows that came; updates and deletes of that time have no"
        none = "it has no backfill, so that they have no"
        note(
            f"{counted(gaps.statements, 'statement')} made no events meanwhile: {added if capture.fills else none}"
            " events"
        )


@captures.command()
def backfill(
    name: Name,
    step: Annotated[int, typer.Option("--step", min=1, max=100_000, help="Rows in a transaction.")] = STEP,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Add events for rows that have none: rows from before the capture, and rows from a pause.

    The table is read by its key, in small transactions beside its writers. After an interruption the next backfill
    continues. A repeated one finds that every row has its event.

    \b
    Examples:
      refold captures backfill orders
    """
    from refold.engine.capture import backfill as filling

    with session(database_url, "refold_capture", acts=True) as conn:
        capture = _known(conn, name)
        rows = _estimate(conn, capture)

        def tell(now: Backfill) -> None:
            if not json and now.seen % (step * 100) == 0 and now.seen:
                note(f"{now.seen:,} of about {max(rows, now.seen):,} rows read, {now.added:,} had no event")

        done = filling.backfill(conn, capture, tell, step=step)
        gaps = store.gaps(conn).get(capture.capture_id)
    if json:
        as_json({"capture": name, "rows": done.seen, "added": done.added, "gaps": gaps.statements if gaps else 0})
        return
    line(f"{name}: {counted(done.seen, 'row')} read, {done.added:,} had no event")
    if gaps is not None and gaps.statements:
        note(f"{counted(gaps.statements, 'statement')} made no events since it began: run it again")


@captures.command()
def drop(name: Name, dry_run: DryRun = False, json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """Drop a capture: its triggers and functions. Its events stay in the log.

    \b
    Examples:
      refold captures drop orders --dry-run
    """
    from refold.engine.capture import deploy as engine

    with session(database_url, "refold_capture", acts=True) as conn:
        capture = _known(conn, name)
        gone = [f"trigger {trigger} on {on}" for on, names in capture.triggers.items() for trigger in names]
        gone += [f"function refold_captures.{function}" for function in capture.functions]
        if not dry_run:
            engine.drop(conn, capture)
    if json:
        as_json({"capture": name, "dropped": gone, "done": not dry_run})
        return
    for one in gone:
        line(("would drop " if dry_run else "dropped ") + one)
    path = Path("captures") / f"{name}.toml"
    if not dry_run and path.exists():
        note(f"{path} still defines it: remove the file too, or the next `refold deploy` creates the capture again")


def _known(conn: psycopg.Connection, name: str) -> Capture:
    store.insist_on_tables(conn)
    return store.known(conn, name)


def _estimate(conn: psycopg.Connection, capture: Capture) -> int:
    row = conn.execute(
        "SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint FROM pg_partition_tree(to_regclass(%s)) AS t"
        " JOIN pg_class AS c ON c.oid = t.relid WHERE t.isleaf",
        (f'"{capture.table_schema}"."{capture.table_name}"',),
    ).fetchone()
    return 0 if row is None else int(row[0])


def _tell_state(name: str, state: str, changed: bool, json: bool) -> None:
    if json:
        as_json({"capture": name, "state": state, "changed": changed})
    else:
        line(f"{name}: {state}" if changed else f"{name}: nothing to do")


def _told(one: Capture, gaps: Gaps | None, filled: Backfill | None, damage: list[str]) -> dict[str, object]:
    state = "damaged" if damage else "paused" if gaps is not None and gaps.paused else "live"
    return {
        "capture": one.name,
        "table": f"{one.table_schema}.{one.table_name}",
        "operations": one.operations,
        "state": state,
        "damage": damage,
        "gaps": 0 if gaps is None else gaps.statements,
        "gap_since": None if gaps is None else gaps.since,
        "error": damage[0] if damage else None if gaps is None else gaps.error,
        "backfill": None
        if filled is None
        else {
            "started_at": filled.started_at,
            "finished_at": filled.finished_at,
            "rows": filled.seen,
            "added": filled.added,
        },
        "changed_at": one.changed_at,
        "changed_by": one.changed_by,
    }


def _words(backfill: object) -> str:
    if not isinstance(backfill, dict):
        return "none"
    state = "done" if backfill["finished_at"] else "interrupted, or running"
    return f"{state}: {backfill['rows']:,} rows, {backfill['added']:,} added"
