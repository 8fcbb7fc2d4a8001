"""`refold deploy`, `rebuild`, `promote` and `rollback`: from files to live metrics, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import psycopg
import typer
from rich.progress import TaskID

from refold.builds.build import Build
from refold.builds.changes import Change
from refold.builds.promote import drop_superseded
from refold.builds.views import apply_analyst_views, without_barrier
from refold.cli.app import METRICS, app
from refold.cli.output import as_json, line, note, progress, table
from refold.cli.session import AsJson, DatabaseUrl, Projections, folder, session
from refold.deployment import rollback as going_back
from refold.deployment.candidates import go_live
from refold.deployment.deploy import deploy as deploy_builds
from refold.deployment.deploy import plan as plan_of
from refold.deployment.deploy import rebuild as rebuild_builds
from refold.deployment.drive import Progress
from refold.projections.definition import load_directory
from refold.projections.files import project_files

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]
NoPromote = Annotated[
    bool,
    typer.Option("--no-promote", help="Leave the new builds beside the live ones, for `refold promote` later."),
]
RecreateViews = Annotated[
    bool,
    typer.Option(
        "--recreate-views",
        help="Where a metric's columns change: also drop and make again views outside the schema `metrics`.",
    ),
]


@app.command(rich_help_panel=METRICS)
def deploy(
    projections: Projections = None,
    dry_run: DryRun = False,
    no_promote: NoPromote = False,
    recreate_views: RecreateViews = False,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Make the metrics be what the files say.

    Builds what is new or changed and everything that reads it, while the log is written and analysts read; then
    all of it goes live in one transaction. Afterwards the views in ../sql/views are applied.

    \b
    Examples:
      refold deploy --dry-run           the plan: what is new, changed, and why
      refold deploy                     do it
      refold deploy --no-promote        build beside; `refold promote` switches
    """
    chosen = folder(projections)
    definitions = load_directory(chosen)
    with session(database_url) as conn:
        todo = plan_of(conn, definitions)
        if not json:
            _show_plan(todo)
        if dry_run:
            if json:
                as_json({"plan": [_change(one) for one in todo]})
            return
        with _bars() as report:
            builds = deploy_builds(
                conn, chosen, definitions, report, promote=not no_promote, recreate_foreign=recreate_views
            )
        if not json:
            _show_outcome(builds, promoted=not no_promote, nothing="Everything is as the files say.")
        views, skipped = _analysts_views(conn, chosen, quiet=json)
        _tidy(conn)
    if json:
        plan = [_change(one) for one in todo]
        as_json({"plan": plan, "builds": [_build(b) for b in builds], "views": views, "skipped_views": skipped})


@app.command(rich_help_panel=METRICS)
def rebuild(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Projections that are live.")],
    cascade: Annotated[bool, typer.Option("--cascade", help="Also everything that reads them.")] = False,
    projections: Projections = None,
    no_promote: NoPromote = False,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Build metrics again from the log, and switch to the new tables.

    The definition stays as it is deployed. Nothing stops meanwhile, and no event is lost or counted twice.

    \b
    Examples:
      refold rebuild event_counts
      refold rebuild enriched_events --cascade
    """
    with session(database_url) as conn, _bars() as report:
        builds = rebuild_builds(
            conn, folder(projections, quiet=True), names, report, cascade=cascade, promote=not no_promote
        )
        _tidy(conn)
    if json:
        as_json({"builds": [_build(build) for build in builds]})
    else:
        _show_outcome(builds, promoted=not no_promote, nothing="Nothing to rebuild.")


@app.command(rich_help_panel=METRICS)
def promote(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME…]", help="Projections; without any, all that wait.", show_default=False),
    ] = None,
    projections: Projections = None,
    recreate_views: RecreateViews = False,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Go live with builds that were made with --no-promote.

    What they read and what reads them goes live with them, in one transaction.

    \b
    Examples:
      refold promote
      refold promote event_counts
    """
    chosen = folder(projections, quiet=True)
    with session(database_url) as conn:
        with _bars() as report:
            builds = go_live(conn, chosen, names or (), report, recreate_foreign=recreate_views)
        if not json:
            _show_outcome(builds, promoted=True, nothing="No build waits to be promoted.")
        views, skipped = _analysts_views(conn, chosen, quiet=json) if builds else ([], [])
        _tidy(conn)
    if json:
        as_json({"builds": [_build(build) for build in builds], "views": views, "skipped_views": skipped})


@app.command(rich_help_panel=METRICS)
def rollback(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A projection that is live.")],
    dry_run: DryRun = False,
    projections: Projections = None,
    recreate_views: RecreateViews = False,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Go back to the builds that were live before the deployment that brought NAME.

    The earlier tables are brought up to date first, so the figures are those of the earlier definition over the
    whole log. Builds that went live together go back together. `refold rollback NAME` again goes forward.

    \b
    Examples:
      refold rollback event_counts --dry-run
      refold rollback event_counts
    """
    chosen = folder(projections, quiet=True)
    with session(database_url) as conn:
        steps = going_back.plan(conn, name)
        if not json:
            table(("PROJECTION", "ACTION", "FROM", "TO", "WHY"), [
                (step.projection, step.action, step.leaves, step.table, step.because) for step in steps
            ])  # fmt: skip
        if dry_run:
            if json:
                as_json({"plan": [_step(step) for step in steps]})
            return
        with _bars() as report:
            builds = going_back.rollback(conn, chosen, name, report, recreate_foreign=recreate_views)
    if json:
        as_json({"plan": [_step(step) for step in steps], "builds": [_build(build) for build in builds]})
    else:
        _show_outcome(builds, promoted=True, nothing="Nothing to go back to.")
        note("The files are as they were: change them back too, or the next `refold deploy` goes forward again.")


@contextmanager
def _bars() -> Iterator[Callable[[Progress], None]]:
    """A bar for each build, fed by the drive's reports."""
    with progress() as bars:
        tasks: dict[int, TaskID] = {}

        def report(step: Progress) -> None:
            key = step.build.build_id
            if key not in tasks:
                tasks[key] = bars.add_task(step.build.projection, total=None, note="")
            total = max(step.total, step.events) if step.total else None
            bars.update(tasks[key], completed=step.events, total=total, note=step.stage)

        yield report


def _analysts_views(
    conn: psycopg.Connection, projections: Path, *, quiet: bool
) -> tuple[list[str], list[dict[str, str]]]:
    """Applies the views beside the projections; answers which stand, and which could not and why."""
    views = projections.resolve().parent / "sql" / "views"
    skipped = apply_analyst_views(conn, views)
    left_out = {name for name, _ in skipped}
    applied = [path.stem for path in project_files(views, ".sql") if path.name not in left_out]
    if applied and not quiet:
        line(f"views: {', '.join(applied)}")
    for name, reason in skipped:
        note(f"view {name} left out: {reason}")
    for name in [] if quiet else without_barrier(conn, applied):
        note(
            f"view {name} leaves rows out, and whoever reads it can make them out by a function in WHERE: if they are "
            "nobody's business, CREATE OR REPLACE VIEW … WITH (security_barrier) AS …"
        )
    return applied, [{"view": Path(name).stem, "because": reason} for name, reason in skipped]


def _tidy(conn: psycopg.Connection) -> None:
    """Drops tables that nobody can go back to any more."""
    try:
        drop_superseded(conn)
    except psycopg.errors.LockNotAvailable:
        note("a superseded table is still being read; the next deploy drops it")


def _show_plan(todo: Sequence[Change]) -> None:
    rows = []
    for one in todo:
        plan = None if one.definition is None else one.definition.plan
        rows.append((one.projection, one.action, plan and plan.upkeep, plan and plan.stream, one.because))
    table(("PROJECTION", "ACTION", "UPKEEP", "READS", "WHY"), rows)


def _show_outcome(builds: Sequence[Build], *, promoted: bool, nothing: str) -> None:
    if not builds:
        line(nothing)
    for build in builds:
        line(f"{'live' if promoted else 'built'}: {build.projection}  ({build.table_name})")
        if build.dead_letters:
            note(f"{build.projection} leaves {build.dead_letters:,} out: `refold deadletters list {build.projection}`")
    if builds and not promoted:
        line("They stand beside the live ones. `refold promote` switches to them.")


def _change(change: Change) -> dict[str, object]:
    definition = change.definition
    return {
        "projection": change.projection,
        "action": change.action,
        "because": change.because,
        "upkeep": None if definition is None else definition.plan.upkeep,
        "reads": None if definition is None else definition.plan.stream,
        "file": None if definition is None else definition.path,
    }


def _build(build: Build) -> dict[str, object]:
    return {"projection": build.projection, "table": build.table_name, "upkeep": build.upkeep}


def _step(step: going_back.Step) -> dict[str, object]:
    return {
        "projection": step.projection,
        "action": step.action,
        "from": step.leaves,
        "to": step.table,
        "because": step.because,
    }
