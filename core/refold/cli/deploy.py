"""`refold deploy`: make the live metrics match the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import psycopg
import typer

from refold.cli.app import METRICS, app
from refold.cli.builds import (
    DryRun,
    NoPromote,
    RecreateViews,
    bars,
    build_as_dict,
    tell_outcome,
    tell_views,
    tidy,
)
from refold.cli.output import as_json, line, note, table
from refold.cli.session import AsJson, DatabaseUrl, own_folder, session
from refold.cli.view_costs import scan_as_dict, tell_costs
from refold.errors import DefinitionError, RefoldError, at_once, each

if TYPE_CHECKING:
    from refold.engine.deployment.plan import Change
    from refold.engine.publish.scans import Scan
    from refold.model.projection.files import Overlooked

ProjectionsToDeploy = Annotated[
    Path | None,
    typer.Option(
        "--projections", metavar="DIR", help="Folder of projections. Default: ./projections.", show_default=False
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
    Captures in ../captures and sinks in ../sinks come last, each in a transaction of its own.

    Exit status: 0 done, 1 a view cannot be created, 2 another error. After 1 and 2 nothing is changed.

    \b
    Examples:
      refold deploy --dry-run           the plan: what is new, changed, and why
      refold deploy                     build and go live
      refold deploy --no-promote        build only; `refold promote` goes live
      refold deploy --starters          the projections that come with refold
    """
    from refold.cli import capture_plan, sink_plan
    from refold.engine.deployment.deploy import deploy as deploy_builds
    from refold.engine.deployment.deploy import plan as plan_of
    from refold.engine.deployment.deploy import refused
    from refold.engine.publish.scans import scans
    from refold.engine.publish.shown import hidden
    from refold.engine.verify.silent import silent
    from refold.model.capture.capture_file import captures_beside
    from refold.model.projection.definition import EXTENSIONS, load
    from refold.model.projection.files import overlooked
    from refold.model.projection.view_file import load_views
    from refold.model.sink.sink_file import sinks_beside
    from refold.store.builds.build import kept
    from refold.store.builds.compiled import Compiler

    chosen = own_folder(projections, starters=starters)
    loading = load(chosen)
    mistakes: list[RefoldError] = [*loading.mistakes]
    costly: list[Scan] = []
    left_out = [
        *overlooked(chosen, *EXTENSIONS),
        *overlooked(_views_beside(chosen), ".sql"),
        *overlooked(_beside(captures_beside(chosen)), ".toml"),
        *overlooked(_beside(sinks_beside(chosen)), ".toml"),
    ]
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
        changes = capture_plan.captures_of(database_url, _beside(captures_beside(chosen)), mistakes)
        sinks = sink_plan.sinks_of(conn, _beside(sinks_beside(chosen)), Compiler(chosen), loading, mistakes)
        if mistakes:
            raise at_once(sorted(each(mistakes), key=_place))
        todo = plan_of(conn, loading.definitions)
        todo = [replace(one, because=one.because or _AGAIN) if one.projection in lost else one for one in todo]
        if not json:
            _show_plan(todo)
            capture_plan.show_captures(changes, sql=dry_run)
            sink_plan.show_sinks(sinks)
        if dry_run:
            if json:
                as_json(
                    {
                        "plan": [_change(one) for one in todo],
                        "captures": [capture_plan.capture_change(one) for one in changes],
                        "sinks": [sink_plan.sink_change(one) for one in sinks],
                        "scans": [scan_as_dict(one) for one in costly],
                        "left_out": [one.path for one in left_out],
                    }
                )
            else:
                _show_left_alone(todo)
                _show_silent(conn, todo)
                tell_costs(costly, chosen, loading.definitions)
            return
        with bars() as report:
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
            tell_outcome(
                builds,
                promoted=not no_promote,
                silent=silent(conn, builds),
                nothing="Nothing to do: the live metrics match the files.",
            )
            tell_views(conn, shown)
            _show_left_alone(todo)
        costly = scans(conn, shown)
        if not json:
            tell_costs(costly, chosen, loading.definitions)
        delivers = sink_plan.deploy_sinks(conn, sinks)
        tidy(conn)
    made = capture_plan.deploy_captures(database_url, changes)
    if not json:
        for name in made:
            line(f"{name}: captured")
        for name in delivers:
            line(f"{name}: a sink, delivered by workers and `refold deliver`")
        capture_plan.show_backfills(changes)
    if json:
        as_json(
            {
                "plan": [_change(one) for one in todo],
                "captures": [capture_plan.capture_change(one) for one in changes],
                "sinks": [sink_plan.sink_change(one) for one in sinks],
                "builds": [build_as_dict(build) for build in builds],
                "views": shown,
                "scans": [scan_as_dict(one) for one in costly],
                "left_out": [one.path for one in left_out],
            }
        )


def _views_beside(projections: Path) -> Path:
    """Return the folder of views beside a folder of projections, relative to the working directory."""
    from refold.model.projection.view_file import views_beside

    return _beside(views_beside(projections))


def _beside(folder: Path) -> Path:
    """Return a folder relative to the working directory, if it is below."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _place(error: RefoldError) -> tuple[bool, str, int]:
    """Return the sort key of a mistake: path and line; mistakes without a file come last."""
    path = error.path if isinstance(error, DefinitionError) else None
    return path is None, str(path), (error.line or 0) if isinstance(error, DefinitionError) else 0


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
    from refold.engine.verify.silent import missing_actions
    from refold.model.projection.hints import actions_of
    from refold.model.projection.plan import LOG
    from refold.model.stream.page_sql import LOG_STREAM

    for one in todo:
        definition = one.definition
        if one.builds and definition is not None and definition.language == "sql" and definition.plan.stream == LOG:
            wanted = actions_of(definition.source)
            why = missing_actions(conn, LOG_STREAM.table, wanted) if wanted else None
            if why is not None:
                note(f"{one.projection}: {why}")


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
