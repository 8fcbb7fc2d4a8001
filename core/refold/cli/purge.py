"""`refold archive purge`: letting archived segments go from the log."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from refold.cli.app import DRIFT
from refold.cli.bars import progress
from refold.cli.confirm import confirm
from refold.cli.output import as_json, line, note, table
from refold.cli.session import AsJson, DatabaseUrl, session
from refold.errors import InputError
from refold.prose import counted

if TYPE_CHECKING:
    from refold.engine.purge.purge import Candidate, Purged

NOTHING = "nothing"
_MIB = 1024 * 1024


def purge(
    before: Annotated[
        str | None,
        typer.Option(
            "--before",
            metavar="TIME",
            help="Purge what was sealed before then. ISO 8601; UTC if there is no offset. Default: what keep_log says.",
        ),
    ] = None,
    drop_retired: Annotated[
        bool,
        typer.Option("--drop-retired", help="Drop retired builds that need purged events; no rollback leads to them."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would go, and what is in the way of each segment.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Purge without asking.")] = False,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Let old segments go from the log, once the archive has them and every metric has counted them.

    Metrics keep their numbers: audits, heals and rebuilds go on from a base in which the events are counted. Segments
    go from the oldest on, and only sealed ones with a verified file, whose events all builds on the log have applied.
    Where something needs a segment, the purge stops there, and says what to do.

    Workers do the same if refold.settings.keep_log is set.

    Exit status: 0 done, 1 something is in the way, 2 the store failed.

    \b
    Examples:
      refold archive purge --dry-run --before 2026-01-01
      refold archive purge --before 2026-01-01
      refold archive purge --yes --json
    """
    from refold.cli.reconcile import instant
    from refold.engine.publish.switch import drop_retired as drop_build
    from refold.engine.purge import purge as engine
    from refold.engine.purge.conditions import hindering
    from refold.store.builds.compiled import Compiler

    limit = None if before is None else instant(before, "--before")
    with session(database_url, acts=not dry_run) as conn:
        if engine.before(conn, limit) is None:
            raise InputError(
                "the log keeps all segments",
                remedy="Give a time: `--before 2026-01-01`, or UPDATE refold.settings SET keep_log = '90 days'.",
            )
        found = engine.plan(conn, limit)
        if dry_run:
            _show_plan(found, json=json)
            return
        if found and not yes:
            what = _going(found, drop_retired=drop_retired)
            confirm(
                f"Let {what} go from the log?",
                piped=f"{what} would leave the log, and stdin is not a terminal",
                remedy="Look at them with `refold archive purge --dry-run`, then add --yes.",
            )
        if drop_retired:
            for build in hindering(conn, [(one.due.lower, one.due.upper) for one in found]):
                if drop_build(conn, build.build_id, build.table_name):
                    note(f"dropped the retired build {build.table_name}")
        done = engine.Purged()
        try:
            with progress() as bars:
                task = bars.add_task("purging", total=None, note="")
                engine.purge(
                    conn,
                    Compiler(None),
                    limit=limit,
                    progress=lambda name, at, of: bars.update(task, description=name, completed=at, total=of),
                    result=done,
                )
        except Exception:
            if done.segments:
                note(f"{_what_went(done)}; then came an error. What is done stays.")
            raise
    as_json(asdict(done)) if json else _show_purged(done)
    if done.stopped_at is not None:
        raise typer.Exit(DRIFT)


def _going(found: list[Candidate], *, drop_retired: bool) -> str:
    """Return how many segments go, as far as it is known: the first ones, up to one with something in its way."""
    blocked = (
        at
        for at, one in enumerate(found)
        if not all(each.own or (each.retired and drop_retired) for each in one.obstacles)
    )
    free = next(blocked, len(found))
    what = counted(len(found), "segment")
    return what if free == len(found) else f"{free} of {what}, and others if nothing is in their way by then,"


def _show_plan(found: list[Candidate], *, json: bool) -> None:
    if json:
        as_json({"segments": [asdict(one) for one in found]})
        return
    if not found:
        line("nothing to purge: no segment is old enough")
        return
    ways: list[str] = []
    for one in found:
        others = [each.reason for each in one.obstacles if not each.own]
        ways.append("; ".join(others) or ("an earlier segment" if any(way != NOTHING for way in ways) else NOTHING))
    table(
        ("SEGMENT", "EVENTS", "MIB", "SEALED", "IN THE WAY"),
        [
            (
                one.due.name,
                one.due.events,
                f"{one.due.bytes / _MIB:,.1f}",
                one.due.sealed_at,
                way,
            )
            for one, way in zip(found, ways, strict=True)
        ],
        right=("EVENTS", "MIB"),
    )
    _remedies(next((one for one, way in zip(found, ways, strict=True) if way != NOTHING), None))


def _remedies(candidate: Candidate | None) -> None:
    if candidate is None:
        return
    for one in candidate.obstacles:
        if not one.own:
            note(f"{candidate.due.name}: {one.reason}. {one.remedy}")


def _what_went(done: Purged) -> str:
    what = f"{counted(len(done.segments), 'segment')}: {counted(done.events, 'event')}"
    return f"purged {what}, {done.bytes / _MIB:,.1f} MiB"


def _show_purged(done: Purged) -> None:
    if done.segments:
        line(_what_went(done))
    elif done.stopped_at is None:
        line("nothing to purge: no segment is old enough")
    if done.stopped_at is not None:
        line(f"{done.stopped_at.due.name} stays in the log")
        _remedies(done.stopped_at)
