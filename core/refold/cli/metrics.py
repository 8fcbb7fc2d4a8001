"""`refold deploy`, `rebuild`, `promote`, `rollback`, `rename`, `drop`: change which metrics are live."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import psycopg
import typer
from rich.progress import TaskID

from refold.cli.app import METRICS, app
from refold.cli.bars import progress
from refold.cli.output import as_json, line, note, table
from refold.cli.session import AsJson, DatabaseUrl, Projections, folder, own_folder, session
from refold.cli.view_costs import scan_as_dict, tell_costs
from refold.engine.deployment import drop as removal
from refold.engine.deployment import rename as renaming
from refold.engine.deployment import rollback as going_back
from refold.engine.deployment.deploy import deploy as deploy_builds
from refold.engine.deployment.deploy import plan as plan_of
from refold.engine.deployment.deploy import rebuild as rebuild_builds
from refold.engine.deployment.deploy import refused
from refold.engine.deployment.plan import Change
from refold.engine.deployment.promote import go_live, views_of
from refold.engine.deployment.run import Progress
from refold.engine.publish.scans import Scan, scans
from refold.engine.publish.shown import hidden
from refold.engine.publish.switch import drop_superseded
from refold.engine.publish.views import without_barrier
from refold.engine.verify.silent import Silence, missing_actions, silent
from refold.errors import DefinitionError, RefoldError, at_once, each
from refold.model.projection.definition import EXTENSIONS, load
from refold.model.projection.files import Overlooked, overlooked
from refold.model.projection.hints import actions_of
from refold.model.projection.plan import LOG
from refold.model.projection.view_file import load_views, views_beside
from refold.model.stream.page_sql import LOG_STREAM
from refold.store.builds.build import Build, kept
from refold.store.builds.compiled import Compiler
from refold.store.schema.resources import projections_dir

ProjectionsToDeploy = Annotated[
    Path | None,
    typer.Option(
        "--projections", metavar="DIR", help="Folder of projections. Default: ./projections.", show_default=False
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan; change nothing.")]
NoPromote = Annotated[
    bool,
    typer.Option("--no-promote", help="Do not switch to the new builds; `refold promote` does that later."),
]
RecreateViews = Annotated[
    bool,
    typer.Option(
        "--recreate-views",
        help="If a metric's columns change, also drop and recreate dependent views outside the schema `metrics`.",
    ),
]

_AGAIN = "its view was dropped or replaced, and is recreated"


@app.command(rich_help_panel=METRICS)
def deploy(
    projections: ProjectionsToDeploy = None,
    starters: Annotated[bool, typer.Option("--starters", help="Deploy the projections that come with refold.")] = False,
    dry_run: DryRun = False,
    no_promote: NoPromote = False,
    recreate_views: RecreateViews = False,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Make the live metrics match the files.

    The command first reports all errors in the files at once; --dry-run refuses what a deploy would refuse. It then
    builds new and changed projections, and everything that reads them, beside the live ones (blue/green). Producers
    and analysts continue meanwhile. All builds go live in one transaction, with the views in ../sql/views.

    Exit status: 0 done, 1 a view cannot be created, 2 another error. After 1 and 2 nothing is changed.

    \b
    Examples:
      refold deploy --dry-run           the plan: what is new, changed, and why
      refold deploy                     build and go live
      refold deploy --no-promote        build only; `refold promote` goes live
      refold deploy --starters          the projections that come with refold
    """
    chosen = own_folder(projections, starters=starters)
    loading = load(chosen)
    mistakes: list[RefoldError] = [*loading.mistakes]
    costly: list[Scan] = []
    left_out = [*overlooked(chosen, *EXTENSIONS), *overlooked(_views_beside(chosen), ".sql")]
    if not json:
        _show_left_out(left_out)
    with session(database_url) as conn:
        live = {build.projection for build in kept(conn)}
        lost = set(hidden(conn, Compiler(chosen)))
        views = load_views(_views_beside(chosen), loading.names | live, mistakes)
        if mistakes or dry_run:
            mistakes += refused(
                conn,
                loading.definitions,
                views,
                loading.unknown,
                lost=lost,
                recreate_foreign=recreate_views,
                scanned=costly,
            )
        if mistakes:
            raise at_once(sorted(each(mistakes), key=_place))
        todo = plan_of(conn, loading.definitions)
        todo = [replace(one, because=one.because or _AGAIN) if one.projection in lost else one for one in todo]
        if not json:
            _show_plan(todo)
        if dry_run:
            if json:
                as_json(
                    {
                        "plan": [_change(one) for one in todo],
                        "scans": [scan_as_dict(one) for one in costly],
                        "left_out": [one.path for one in left_out],
                    }
                )
            else:
                _show_left_alone(todo)
                _show_silent(conn, todo)
                tell_costs(costly, chosen, loading.definitions)
            return
        with _bars() as report:
            builds = deploy_builds(
                conn,
                chosen,
                loading.definitions,
                report,
                views=views,
                promote=not no_promote,
                recreate_foreign=recreate_views,
            )
        waiting = bool(builds) and no_promote
        shown = [] if waiting else [view.name for view in views]
        if not json:
            _show_outcome(
                builds,
                promoted=not no_promote,
                silent=silent(conn, builds),
                nothing="Nothing to do: the live metrics match the files.",
            )
            _show_views(conn, shown)
            _show_left_alone(todo)
        costly = scans(conn, shown)
        if not json:
            tell_costs(costly, chosen, loading.definitions)
        _tidy(conn)
    if json:
        as_json(
            {
                "plan": [_change(one) for one in todo],
                "builds": [_build(build) for build in builds],
                "views": shown,
                "scans": [scan_as_dict(one) for one in costly],
                "left_out": [one.path for one in left_out],
            }
        )


@app.command(rich_help_panel=METRICS)
def rebuild(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Live projections.")],
    cascade: Annotated[bool, typer.Option("--cascade", help="Also rebuild everything that reads them.")] = False,
    projections: Projections = None,
    no_promote: NoPromote = False,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Rebuild metrics from the log, then switch to the new tables.

    The deployed definition is used. Producers, workers and analysts continue meanwhile, and no event is lost or
    counted twice.

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
        typer.Argument(metavar="[NAME…]", help="Projections. Default: all that are ready.", show_default=False),
    ] = None,
    projections: Projections = None,
    recreate_views: RecreateViews = False,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Promote builds that were made with --no-promote.

    The builds go live (cut-over) in one transaction, together with the builds that they read, the builds that read
    them, and the views that were in sql/views at that deploy.

    \b
    Examples:
      refold promote
      refold promote event_counts
    """
    chosen = folder(projections, quiet=True)
    with session(database_url) as conn:
        with _bars() as report:
            builds = go_live(conn, chosen, names or (), report, recreate_foreign=recreate_views)
        views = views_of(conn, builds)
        costly = scans(conn, views)
        if not json:
            _show_outcome(builds, promoted=True, silent=silent(conn, builds), nothing="No build is ready to promote.")
            _show_views(conn, views)
            # Files may have become wrong since the builds were made.
            tell_costs(costly, chosen, load(chosen).definitions if costly and chosen.is_dir() else {})
        _tidy(conn)
    if json:
        as_json(
            {
                "builds": [_build(build) for build in builds],
                "views": views,
                "scans": [scan_as_dict(one) for one in costly],
            }
        )


@app.command(rich_help_panel=METRICS)
def rollback(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A live projection.")],
    dry_run: DryRun = False,
    projections: Projections = None,
    recreate_views: RecreateViews = False,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Return to the builds that were live before the last deployment of NAME.

    refold first applies all newer events to the earlier tables, so they hold the earlier definition's values over the
    whole log. Builds that went live together are rolled back together. A second `refold rollback NAME` goes forward
    again.

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
        _show_outcome(builds, promoted=True, nothing="Nothing to roll back to.")
        note(
            "The files are unchanged: revert them too, or the next `refold deploy` deploys the newer definition again."
        )


@app.command(rich_help_panel=METRICS)
def rename(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A live projection.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")],
    dry_run: DryRun = False,
    projections: Projections = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Rename a metric without rebuilding it.

    Rows, history and grants are kept, and views that read the metric keep working. Rename its file too. If code
    contains the name, change the code first: the function of a transform, and projections that read a stream by name.
    refold does not rebuild them.

    \b
    Examples:
      refold rename sales purchases --dry-run
      refold rename sales purchases
    """
    chosen = folder(projections, quiet=True)
    with session(database_url) as conn:
        renamed = (renaming.plan if dry_run else renaming.rename)(conn, chosen, old, new)
    if json:
        as_json(
            {"from": old, "to": new, "table": renamed.build.table_name, "views": renamed.views, "done": not dry_run}
        )
        return
    line(f"{'would be renamed' if dry_run else 'renamed'}: {old} is {new}  ({renamed.build.table_name})")
    for view in renamed.views:
        note(f"the view {view} reads it and keeps working; if a file defines that view, write metrics.{new} there")
    for path in _files_of(chosen, old):
        note(f"{path} still defines {old}: rename the file too, or the next `refold deploy` makes it a metric")


@app.command(rich_help_panel=METRICS)
def drop(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Live projections.")],
    dry_run: DryRun = False,
    projections: Projections = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Drop metrics: refold stops updating them and removes their views.

    The log does not change. The command refuses, and names the readers, if a metric or view reads them: drop such
    metrics together, and drop such views first. The tables are kept for `refold rollback NAME`, which makes the
    metrics live and current again.

    \b
    Examples:
      refold drop sales --dry-run
      refold drop sales
      refold drop clicks clicks_by_day      a stream, with what reads it
    """
    chosen = folder(projections, quiet=True)
    with session(database_url) as conn:
        ended = removal.plan(conn, names)
        if not json:
            table(("PROJECTION", "ACTION", "TABLE", "WHY"), [
                (one.build.projection, "dropped", one.build.table_name, one.because) for one in ended
            ])  # fmt: skip
        if not dry_run:
            ended = removal.drop(conn, names)
            _tidy(conn)
    if json:
        as_json({"dropped": [_build(one.build) for one in ended], "done": not dry_run})
        return
    if not dry_run:
        first = ended[0].build.projection
        line(f"{', '.join(dict.fromkeys(one.build.projection for one in ended))}: dropped")
        note(f"The tables are kept for now: `refold rollback {first}` restores all metrics that were dropped together.")
    for path in (path for name in names for path in _files_of(chosen, name)):
        note(f"{path} still defines it: remove the file too, or the next `refold deploy` creates the metric again")


def _files_of(projections: Path, name: str) -> list[Path]:
    """Return the files that define a projection, in the user's own folder."""
    if projections == projections_dir():
        return []
    return [path for path in (projections / f"{name}.sql", projections / f"{name}.py") if path.is_file()]


@contextmanager
def _bars() -> Iterator[Callable[[Progress], None]]:
    """Show a progress bar for each build."""
    with progress() as bars:
        tasks: dict[int, TaskID] = {}

        def report(step: Progress) -> None:
            key = step.build.build_id
            if key not in tasks:
                tasks[key] = bars.add_task(step.build.projection, total=None, note="")
            total = max(step.total, step.events) if step.total else None
            bars.update(tasks[key], completed=step.events, total=total, note=step.stage)

        yield report


def _views_beside(projections: Path) -> Path:
    """Return the folder of views beside a folder of projections, relative to the working directory."""
    folder = views_beside(projections)
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _place(error: RefoldError) -> tuple[bool, str, int]:
    """Return the sort key of a mistake: path and line; mistakes without a file come last."""
    path = error.path if isinstance(error, DefinitionError) else None
    return path is None, str(path), (error.line or 0) if isinstance(error, DefinitionError) else 0


def _show_views(conn: psycopg.Connection, names: Sequence[str]) -> None:
    if names:
        line(f"views: {', '.join(names)}")
    for name in without_barrier(conn, names):
        note(
            f"view {name} filters rows, but a reader can reveal them with a function in WHERE. To hide them: "
            "CREATE OR REPLACE VIEW … WITH (security_barrier) AS …"
        )


def _tidy(conn: psycopg.Connection) -> None:
    """Drop tables that no rollback can use any more."""
    try:
        drop_superseded(conn)
    except psycopg.errors.LockNotAvailable:
        note("a superseded table is still being read; the next deploy drops it")


def _show_plan(todo: Sequence[Change]) -> None:
    rows = []
    for one in todo:
        if one.definition is not None:
            plan = one.definition.plan
            rows.append((one.projection, one.action, plan.upkeep, plan.stream, one.because))
    if rows:
        table(("PROJECTION", "ACTION", "UPKEEP", "READS", "WHY"), rows)
    else:
        note("the folder contains no projection: `refold init DIR` creates an example")


def _show_left_out(files: Sequence[Overlooked]) -> None:
    """Print the files that are ignored and may be meant as definitions; printed first, as they may explain the rest."""
    for one in files:
        there = (one.path.parent / one.meant).exists()
        remedy = f"{one.meant} is used, so remove this one" if there else f"rename it to {one.meant}"
        note(f"{one.path} is ignored, because its name does not end in {Path(one.meant).suffix}: {remedy}")


def _show_left_alone(todo: Sequence[Change]) -> None:
    """Print the live projections without a file in one last line: they may be many, and nothing changes for them."""
    left = [one.projection for one in todo if one.definition is None]
    if left:
        note(f"unchanged, because no file here defines it: {', '.join(left)}")


def _show_silent(conn: psycopg.Connection, todo: Sequence[Change]) -> None:
    """Print the actions that new metrics select and that no event in the log has."""
    for one in todo:
        definition = one.definition
        if one.builds and definition is not None and definition.language == "sql" and definition.plan.stream == LOG:
            wanted = actions_of(definition.source)
            why = missing_actions(conn, LOG_STREAM.table, wanted) if wanted else None
            if why is not None:
                note(f"{one.projection}: {why}")


def _show_outcome(
    builds: Sequence[Build], *, promoted: bool, nothing: str, silent: Mapping[int, Silence] | None = None
) -> None:
    if not builds:
        line(nothing)
    for build in builds:
        found = (silent or {}).get(build.build_id)
        what = f"{'live' if promoted else 'built'}: {build.projection}"
        line(f"{what}, 0 rows: {found.why}" if found is not None and found.empty else f"{what}  ({build.table_name})")
        if found is not None and not found.empty:
            note(f"{build.projection}: {found.why}")
        if build.dead_letters:
            note(f"{build.projection} excludes {build.dead_letters:,}: `refold deadletters list {build.projection}`")
    if builds and not promoted:
        line("The builds are not live yet. `refold promote` switches to them.")


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
