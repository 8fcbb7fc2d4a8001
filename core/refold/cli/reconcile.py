"""`refold reconcile`: compare every metric with its query over the log (data diff and repair)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import psycopg
import typer

from refold.cli.app import DRIFT, TRUST, app
from refold.cli.bars import progress
from refold.cli.output import as_json, line, note, plain, table
from refold.cli.session import AsJson, DatabaseUrl, Projections, folder, session
from refold.cli.sink_audits import show_sink_audits, sink_audits
from refold.errors import InputError
from refold.model.event.exact_json import document
from refold.prose import counted
from refold.store.incidents import open_incidents
from refold.store.schema.resources import projections_dir
from refold.suggest import did_you_mean

if TYPE_CHECKING:
    from rich.progress import Progress

    from refold.engine.reconcile import Difference, ReconcileReport
    from refold.engine.reconcile.reconcile import Depth
    from refold.engine.reconcile.result import Hidden, WrongSlice
    from refold.model.projection.view_file import ViewFile
    from refold.store.builds.build import Build

SHOWN = 50
"""Most findings that are printed; --json gives all."""


@app.command(rich_help_panel=TRUST)
def reconcile(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME…]", help="Projections. Default: all.", show_default=False)
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="DATE|TIME",
            help="Audit only rows of events with a ts since then. ISO 8601; UTC if there is no offset.",
            show_default=False,
        ),
    ] = None,
    depth: Annotated[
        str | None,
        typer.Option(
            "--depth",
            metavar="quick|slice|deep",
            help="Depth of the audit. Default: deep, which recomputes everything.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report rows that differ; heal none.")] = False,
    sinks: Annotated[
        bool, typer.Option("--sinks", help="Then compare what the receivers of sinks have with the metrics.")
    ] = False,
    archive: Annotated[
        bool, typer.Option("--archive", help="First compare what stands for purged events with the archive.")
    ] = False,
    projections: Projections = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Compare the metrics with the log, and heal rows that differ.

    refold compares each table with its query over exactly the events that the table has applied, so lag is not drift.
    A row that differs is missing, an orphan or drifted. Healing recomputes only those rows, and refold.repairs keeps
    the old ones. A metric's view that was dropped or replaced is recreated.

    The depth quick compares rows and read events with the checksums that workers stored. It reads only unsealed events
    and heals nothing. The depth slice also evaluates the query again where checksums differ, and heals; its cost
    depends on the drift. The depth deep (the default) evaluates everything again, in steps. After an interruption it
    continues where it stopped.

    Events that were purged from the log are in the archive alone. With --archive the command first reads them there, a
    file at a time, compares what stands for them in the metrics, and heals it.

    With --sinks, the rows of receivers that can be read back are compared with the metrics too, by checksums. Slices
    that differ are delivered again.

    Exit status: 0 no drift, 1 drift was found (healed or not), 2 the command failed.

    \b
    Examples:
      refold reconcile
      refold reconcile --depth slice
      refold reconcile event_counts --dry-run
      refold reconcile --since 2026-01-01 --json
      refold reconcile --archive
    """
    from refold.engine.reconcile import reconcile as audit
    from refold.store.builds.build import live_builds

    moment = None if since is None else instant(since)
    chosen = how_deep(depth, since=since is not None)
    own = folder(projections, quiet=True)
    with session(database_url, acts=True) as conn, progress() as bars:
        before = _of_archive(conn, own, names or (), dry_run, bars) if archive else None
        task = bars.add_task("auditing", total=len(names or live_builds(conn)), note="")
        report = audit(
            conn,
            own,
            names or (),
            depth=chosen,
            since=moment,
            dry_run=dry_run,
            progress=lambda name, differ: bars.update(task, description=name, advance=1, note=f"{differ:,} differ"),
        )
        if before is not None:
            report.add(before)
        audited = [build for build in live_builds(conn) if build.projection in report.audited]
        differ = [] if names else unlike_files(conn, own)
        damaged = bool(open_incidents(conn, "log_damage"))
        delivered = sink_audits(conn, own, report.audited, dry_run=dry_run) if sinks else []
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
                **({"sinks": [asdict(one) for one in delivered]} if sinks else {}),
            }
        )
    else:
        _show(report, chosen, dry_run=dry_run)
        for view in differ:
            note(f"metrics.{view.name} differs from {view.path}: `refold deploy` recreates it")
        _qualify(audited, damaged=damaged and (bool(report.audited) or not report.unhealed))
        show_sink_audits(delivered, dry_run=dry_run)
    if not report.clean or any(one.wrong for one in delivered):
        raise typer.Exit(DRIFT)


def unlike_files(conn: psycopg.Connection, projections: Path) -> list[ViewFile]:
    """Return the analysts' views that differ from their files.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        projections: folder beside the views; the views that come with refold are not checked.
    """
    from refold.engine.publish.analyst_views import differing
    from refold.model.projection.view_file import load_views, views_beside
    from refold.store.builds.build import live_builds

    if projections == projections_dir():
        return []
    live = {build.projection for build in live_builds(conn)}
    files = load_views(views_beside(projections), live, [])
    with conn.transaction(force_rollback=True):
        names = differing(conn, files)
    return [file for file in files if file.name in names]


def how_deep(depth: str | None, *, since: bool) -> Depth:
    """Return the requested depth.

    Raises:
        InputError: no depth has that name, or it excludes --since.
    """
    from refold.engine.reconcile.reconcile import Depth

    depths: tuple[str, ...] = get_args(Depth)
    if depth is None:
        return "deep"
    if depth not in depths:
        hint = did_you_mean(depth, depths)
        raise InputError(f"--depth {depth}: there is no such depth.{hint}", remedy=f"Depths: {', '.join(depths)}.")
    if since and depth != "deep":
        raise InputError(
            f"--since and --depth {depth} exclude each other: that depth reads checksums, not events",
            remedy="Omit one of them.",
        )
    return depth  # type: ignore[return-value]


def instant(text: str, option: str = "--since") -> datetime:
    """Parse a date or time in ISO 8601; UTC if there is no offset.

    Args:
        text: what was given.
        option: by which option.

    Raises:
        InputError: the text is neither.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(
            f"{option} {text}: not a date or time", remedy="For example 2026-01-31, 2026-01-31T12:00Z."
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _show(report: ReconcileReport, depth: Depth, *, dry_run: bool) -> None:
    """Print a report as text: the verdict first."""
    by = {"quick": " (by their checksums)", "slice": " (by their checksums; --depth deep recomputes everything)"}
    _show_hidden(report.hidden, depth, dry_run=dry_run)
    if report.slices:
        differ = "1 slice differs" if len(report.slices) == 1 else f"{len(report.slices):,} slices differ"
        line(f"drift: {differ}; `refold reconcile --depth slice` finds the rows and heals them")
    elif report.drift:
        fate = "nothing was healed (--dry-run)" if dry_run else "healed; refold.repairs keeps the old rows"
        line(f"drift: {counted(report.drift, 'row')} differed, {fate}")
    elif report.checksums:
        fate = "nothing was corrected (--dry-run)" if dry_run else "corrected"
        line(f"no row differed, but {counted(len(report.checksums), 'stored checksum')} did, {fate}")
    elif report.audited or not report.unhealed:
        what = "no row differed" if report.hidden else "no drift"
        line(f"{what}: {', '.join(report.audited) or 'nothing was audited'}{by.get(depth, '')}")
    if report.unhealed:
        line(f"not healed: {', '.join(report.unhealed)}: the log is damaged; `refold scrub` names the events")
    for reason, names in _by_reason(report).items():
        note(f"{', '.join(names)} {'was' if len(names) == 1 else 'were'} not audited: {reason}")
    for one in report.slices[:SHOWN]:
        line(_slice(one))
    if not report.drift:
        for one in report.checksums[:SHOWN]:
            wrong = (
                "the checksum of the events it has read was wrong" if one.read else "their stored checksum was wrong"
            )
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
        note(f"showing the first {min(len(report.findings), SHOWN)} of {report.drift:,}; --json lists more")


def _by_reason(report: ReconcileReport) -> dict[str, list[str]]:
    """Return the projections that were not audited, by reason; damage of the log is told once, for all of them."""
    found: dict[str, list[str]] = {}
    damage: str | None = None
    for name, reason in report.skipped:
        if name in report.unhealed:
            damage = damage or reason
            reason = damage
        found.setdefault(reason, []).append(name)
    return found


def _show_hidden(hidden: Sequence[Hidden], depth: Depth, *, dry_run: bool) -> None:
    """Print the metrics whose views were dropped or replaced."""
    again = ", ".join(f"metrics.{one.projection}" for one in hidden if one.healed)
    if again:
        line(f"drift: {again} had been dropped or replaced; recreated")
    for one in hidden:
        told = f"metrics.{one.projection} was dropped or replaced"
        if one.because is not None:
            line(f"drift: {told}, and could not be recreated: {one.because}")
            note(one.remedy or "`refold deploy` recreates it.")
        elif not one.healed:
            makes = " --depth slice" if depth == "quick" else ""
            line(f"drift: {told}; `refold reconcile{makes}` recreates it")


def _qualify(audited: Iterable[Build], *, damaged: bool) -> None:
    """Print the conditions that qualify the verdict: excluded events, and damage to the log."""
    for build in audited:
        if build.dead_letters:
            excluded = counted(build.dead_letters, "event")
            note(f"{build.projection} excludes {excluded}: `refold deadletters list {build.projection} --all`")
    if damaged:
        note("the metrics were compared with a damaged log: `refold incidents --open`")


def _where(one: WrongSlice) -> str:
    """Return the name of a slice in words."""
    return f"{one.projection}, {one.slice} of {one.relation}" if one.read else f"{one.relation}, {one.slice}"


def _slice(one: WrongSlice) -> str:
    """Return how a slice differs from its checksums."""
    if one.read:
        what = f"has read {counted(one.recorded, 'event')}, the log has {one.actual:,}"
        return f"{_where(one)}: {what if one.actual != one.recorded else 'has read other events than the log has'}"
    what = f"{counted(one.actual, 'row')}, but {one.recorded:,} were written"
    return f"{_where(one)}: {what if one.actual != one.recorded else 'the rows differ from those that were written'}"


def _differing(row: Any, other: Any) -> str:
    """Return the fields of a row that differ from the other side or the key."""
    if row is None:
        return ""
    if not isinstance(row, Mapping) or not isinstance(other, Mapping):
        return _text(row)
    return _text({name: value for name, value in row.items() if name not in other or other[name] != value})


def _text(values: object) -> str:
    return document(values, plain)


def _of_archive(
    conn: psycopg.Connection, own: Path | None, names: Sequence[str], dry_run: bool, bars: Progress
) -> ReconcileReport:
    """Audit what stands for purged events."""
    from refold.engine.reconcile.archived import reconcile_archived
    from refold.store.builds.compiled import Compiler

    task = bars.add_task("reading the archive", total=None, note="")
    found = reconcile_archived(
        conn,
        Compiler(own),
        names,
        dry_run=dry_run,
        by="refold reconcile",
        progress=lambda name, done, total: bars.update(task, description=name, completed=done, total=total),
    )
    bars.remove_task(task)
    return found


def _as_dict(finding: Difference) -> dict[str, object]:
    return {
        "projection": finding.projection,
        "relation": finding.relation,
        "kind": finding.kind,
        "key": finding.key,
        "before": finding.before,
        "after": finding.after,
        "healed": finding.healed,
    }
