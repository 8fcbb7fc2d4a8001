"""`refold reconcile`: every metric against its query over the log."""

from __future__ import annotations

import json as json_text
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, get_args

import psycopg
import typer

from refold.cli.app import DRIFT, TRUST, app
from refold.cli.bars import progress
from refold.cli.output import as_json, counted, line, note, plain, table
from refold.cli.session import AsJson, DatabaseUrl, Projections, folder, session
from refold.engine.publish.analyst_views import differing
from refold.engine.reconcile import Finding, Report
from refold.engine.reconcile import reconcile as audit
from refold.engine.reconcile.reconcile import Depth
from refold.engine.reconcile.result import Hidden, Slice
from refold.errors import InputError
from refold.model.projection.view_file import ViewFile, load_views, views_beside
from refold.store.builds.build import Build, live_builds
from refold.store.incidents import open_incidents
from refold.store.schema.resources import projections_dir
from refold.suggest import did_you_mean

DEPTHS: tuple[str, ...] = get_args(Depth)
SHOWN = 50
"""Findings that are listed on the screen; --json gives all."""


@app.command(rich_help_panel=TRUST)
def reconcile(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME…]", help="Projections; without any, all.", show_default=False)
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="DATE|TIME",
            help="Only what events since then belong to, by their ts; ISO 8601, UTC where no offset is given.",
            show_default=False,
        ),
    ] = None,
    depth: Annotated[
        str | None,
        typer.Option(
            "--depth",
            metavar="quick|slice|deep",
            help="How far to look. Default: deep, the full proof.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report what differs, and heal nothing.")] = False,
    projections: Projections = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Prove the metrics against the log, and heal what differs.

    Each table is compared with its query over exactly the events that it has applied: lag is not drift. A row is
    missing, an orphan or drifted; healing recomputes just those, and refold.repairs keeps what stood there before.
    If somebody has dropped or replaced the view of a metric, it is made again.

    Three depths. quick compares the rows, and what was read of the log, with the checksums that were kept on the way:
    it reads only the events that are not sealed yet, and heals nothing. slice does the same, evaluates the query again
    where they disagree, and heals: it costs what the drift costs. deep (the default) evaluates everything again, in
    steps; run again after an interruption, it goes on where it stopped.

    Exit status: 0 no drift, 1 drift was found (healed or not), 2 it could not be done.

    \b
    Examples:
      refold reconcile
      refold reconcile --depth slice
      refold reconcile event_counts --dry-run
      refold reconcile --since 2026-01-01 --json
    """
    moment = None if since is None else instant(since)
    chosen = how_deep(depth, since=since is not None)
    own = folder(projections, quiet=True)
    with session(database_url) as conn, progress() as bars:
        task = bars.add_task("auditing", total=len(names or live_builds(conn)), note="")
        report = audit(
            conn,
            own,
            names or (),
            depth=chosen,
            since=moment,
            dry_run=dry_run,
            report=lambda name, differ: bars.update(task, description=name, advance=1, note=f"{differ:,} differ"),
        )
        audited = [build for build in live_builds(conn) if build.projection in report.audited]
        differ = [] if names else unlike_files(conn, own)
        damaged = bool(open_incidents(conn, "log_damage"))
    if json:
        as_json(
            {
                "depth": chosen,
                "clean": report.clean,
                "drift": report.drift,
                "slices": [asdict(one) for one in report.slices],
                "checksums": [asdict(one) for one in report.checksums],
                "counts": [
                    {"projection": name, "relation": relation, "kind": kind, "rows": count}
                    for (name, relation, kind), count in sorted(report.counts.items())
                ],
                "hidden": [asdict(one) for one in report.hidden],
                "unlike_files": [view.name for view in differ],
                "audited": report.audited,
                "unhealed": report.unhealed,
                "skipped": [{"projection": name, "because": reason} for name, reason in report.skipped],
                "findings": [_as_dict(finding) for finding in report.findings],
            }
        )
    else:
        _show(report, chosen, dry_run=dry_run)
        for view in differ:
            note(f"metrics.{view.name} is not what {view.path} says: `refold deploy` makes it that")
        _qualify(audited, damaged=damaged)
    if not report.clean:
        raise typer.Exit(DRIFT)


def unlike_files(conn: psycopg.Connection, projections: Path) -> list[ViewFile]:
    """Analysts' views that do not stand as their files say: the one or the other has been changed since.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        projections: the folder beside which they are; of those that come with refold nobody need have made them.
    """
    if projections == projections_dir():
        return []
    live = {build.projection for build in live_builds(conn)}
    files = load_views(views_beside(projections), live, [])
    with conn.transaction(force_rollback=True):
        names = differing(conn, files)
    return [file for file in files if file.name in names]


def how_deep(depth: str | None, *, since: bool) -> Depth:
    """The depth that was asked for.

    Raises:
        InputError: there is none of that name, or it does not go with --since.
    """
    if depth is None:
        return "deep"
    if depth not in DEPTHS:
        hint = did_you_mean(depth, DEPTHS)
        raise InputError(f"--depth {depth}: there is no such depth.{hint}", remedy=f"One of {', '.join(DEPTHS)}.")
    if since and depth != "deep":
        raise InputError(
            f"--since looks at the events, and --depth {depth} at the kept checksums", remedy="Leave one of them out."
        )
    return depth  # type: ignore[return-value]


def instant(text: str) -> datetime:
    """A date or time in ISO 8601; UTC where no offset is given.

    Raises:
        InputError: it is neither.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(
            f"--since {text}: not a date or time", remedy="For example 2026-01-31, 2026-01-31T12:00Z."
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _show(report: Report, depth: Depth, *, dry_run: bool) -> None:
    """Prints a report for people: the answer first."""
    by = {"quick": " (by their checksums)", "slice": " (by their checksums; --depth deep recomputes everything)"}
    _show_hidden(report.hidden, depth, dry_run=dry_run)
    if report.slices:
        differ = "1 slice differs" if len(report.slices) == 1 else f"{len(report.slices):,} slices differ"
        line(f"drift: {differ}; `refold reconcile --depth slice` says in which rows, and heals them")
    elif report.drift:
        fate = "nothing was healed (--dry-run)" if dry_run else "healed; refold.repairs keeps what stood there"
        line(f"drift: {counted(report.drift, 'row')} differed, {fate}")
    elif report.checksums:
        fate = "nothing was corrected (--dry-run)" if dry_run else "corrected"
        line(f"no row differed, but {counted(len(report.checksums), 'kept checksum')} did, {fate}")
    elif report.audited or not report.unhealed:
        what = "no row differed" if report.hidden else "no drift"
        line(f"{what}: {', '.join(report.audited) or 'nothing was audited'}{by.get(depth, '')}")
    if report.unhealed:
        line(f"not healed: {', '.join(report.unhealed)}: the log is damaged, `refold scrub` names the events")
    for name, reason in report.skipped:
        note(f"{name} was not audited: {reason}")
    for one in report.slices[:SHOWN]:
        line(_slice(one))
    if not report.drift:
        for one in report.checksums[:SHOWN]:
            wrong = "what it has read was counted wrong" if one.read else "their kept checksum was wrong"
            line(f"{_where(one)}: the rows are right, {wrong}")
        return
    for (_, relation, kind), count in sorted(report.counts.items()):
        line(f"{relation}: {count:,} {kind}")
    table(
        ("RELATION", "KIND", "KEY", "BEFORE", "AFTER"),
        [
            (
                f.relation,
                f.kind,
                _text(f.key),
                _differing(f.before, f.after or f.key),
                _differing(f.after, f.before or f.key),
            )
            for f in report.findings[:SHOWN]
        ],
    )
    if report.drift > min(len(report.findings), SHOWN):
        note(f"the first {min(len(report.findings), SHOWN)} of {report.drift:,}; --json lists more")


def _show_hidden(hidden: Sequence[Hidden], depth: Depth, *, dry_run: bool) -> None:
    """The metrics that their views do not show."""
    again = ", ".join(f"metrics.{one.projection}" for one in hidden if one.healed)
    if again:
        line(f"drift: somebody had dropped or replaced {again}; made again")
    for one in hidden:
        told = f"somebody has dropped or replaced metrics.{one.projection}"
        if one.because is not None:
            line(f"drift: {told}, and it could not be made again: {one.because}")
            note(one.remedy or "`refold deploy` makes it again.")
        elif not one.healed:
            makes = " --depth slice" if depth == "quick" else ""
            line(f"drift: {told}; `refold reconcile{makes}` makes it again")


def _qualify(audited: Iterable[Build], *, damaged: bool) -> None:
    """What an audit does not judge, and a reader of its verdict has to know."""
    for build in audited:
        if build.dead_letters:
            left_out = counted(build.dead_letters, "event")
            note(f"{build.projection} leaves {left_out} out: `refold deadletters list {build.projection} --all`")
    if damaged:
        note("the log itself is damaged, and that is what the metrics were compared with: `refold incidents --open`")


def _where(one: Slice) -> str:
    """A slice in words."""
    return f"{one.projection}, {one.slice} of {one.relation}" if one.read else f"{one.relation}, {one.slice}"


def _slice(one: Slice) -> str:
    """How a slice disagrees with its checksums."""
    if one.read:
        what = f"has read {counted(one.kept, 'event')} where there are {one.standing:,}"
        return f"{_where(one)}: {what if one.standing != one.kept else 'has read other events than there are'}"
    what = f"{counted(one.standing, 'row')} where {one.kept:,} were written"
    return f"{_where(one)}: {what if one.standing != one.kept else 'other rows than were written'}"


def _differing(row: Any, other: Any) -> str:
    """What a side says that the other, or the key of the row, does not."""
    if row is None:
        return ""
    if not isinstance(row, Mapping) or not isinstance(other, Mapping):
        return _text(row)
    return _text({name: value for name, value in row.items() if name not in other or other[name] != value})


def _text(values: object) -> str:
    return json_text.dumps(values, ensure_ascii=False, default=plain)


def _as_dict(finding: Finding) -> dict[str, object]:
    return {
        "projection": finding.projection,
        "relation": finding.relation,
        "kind": finding.kind,
        "key": finding.key,
        "before": finding.before,
        "after": finding.after,
        "healed": finding.healed,
    }
