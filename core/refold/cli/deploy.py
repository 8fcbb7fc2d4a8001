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
from refold.cli.canary import Expect, Soak, Steps, percents, tell_started
from refold.cli.durations import span
from refold.cli.output import as_json, line, note, table
from refold.cli.session import AsJson, DatabaseUrl, own_folder, relative, session
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

NOTHING = "Nothing to do: the live metrics match the files."
_ENDS_CANARY = "its canary runs; this deploy ends it, and all readers see the candidate"
_AGAIN = "somebody dropped or replaced its view, and the deploy recreates it"


@app.command(rich_help_panel=METRICS)
def deploy(
    projections: ProjectionsToDeploy = None,
    starters: Annotated[bool, typer.Option("--starters", help="Deploy the projections that come with refold.")] = False,
    dry_run: DryRun = False,
    no_promote: NoPromote = False,
    canary: Annotated[
        bool, typer.Option("--canary", help="Show the new builds to some readers first: see `refold canary start`.")
    ] = False,
    steps: Steps = "1,10,50,100",
    soak: Soak = "1h",
    expect: Expect = None,
    recreate_views: RecreateViews = False,
    accept_incompatible: Annotated[
        list[str] | None,
        typer.Option(
            "--accept-incompatible",
            metavar="ACTION",
            help="Register versions of this action's contract that do not take all events of older versions"
            " (repeatable). refold.actions records who did.",
        ),
    ] = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Make the live metrics match the files.

    The command first reports all errors in the files at once; --dry-run refuses what a deploy would refuse. It then
    builds new and changed projections, and everything that reads them, beside the live ones (blue/green). Producers
    and analysts continue meanwhile. All builds go live in one transaction, with the views in ../sql/views.
    Contracts of events in ../events are registered before the builds are loaded, and hold from then on. A new version
    that does not take all events of each older one is refused.
    Captures in ../captures, sinks in ../sinks and routes of notices in ../notices.toml come last, each in a transaction
    of its own.

    Exit status: 0 done, 1 a view cannot be created, 2 another error. After 1 and 2 nothing is changed.

    \b
    Examples:
      refold deploy --dry-run           the plan: what is new, changed, and why
      refold deploy                     build and go live
      refold deploy --no-promote        build only; `refold promote` goes live
      refold deploy --canary --expect 'columns: users'
      refold deploy --starters          the projections that come with refold
    """
    from refold.cli import capture_plan, contract_plan, sink_plan
    from refold.cli.notices import routes_of
    from refold.engine.canary.canary import start_all
    from refold.engine.deployment.deploy import deploy as deploy_builds
    from refold.engine.deployment.deploy import plan as plan_of
    from refold.engine.deployment.deploy import refused
    from refold.engine.publish.scans import scans
    from refold.engine.publish.shown import hidden
    from refold.engine.verify.silent import silent
    from refold.engine.verify.watchable import unwatchable
    from refold.model.canary.expect import parse
    from refold.model.capture.capture_file import captures_beside
    from refold.model.projection.definition import EXTENSIONS, load
    from refold.model.projection.files import overlooked
    from refold.model.projection.upcast import events_beside
    from refold.model.projection.view_file import load_views
    from refold.model.sink.sink_file import sinks_beside
    from refold.sinks.notices import notices_beside
    from refold.store import notices
    from refold.store.builds.build import kept
    from refold.store.builds.compiled import Compiler
    from refold.store.canaries import open_canaries

    wait = no_promote or canary
    given = percents(steps), span(soak)
    parse(expect or ())
    chosen = own_folder(projections, starters=starters)
    loading = load(chosen)
    mistakes: list[RefoldError] = [*loading.mistakes]
    costly: list[Scan] = []
    left_out = [
        *overlooked(chosen, *EXTENSIONS),
        *overlooked(_views_beside(chosen), ".sql"),
        *overlooked(relative(captures_beside(chosen)), ".toml"),
        *overlooked(relative(sinks_beside(chosen)), ".toml"),
        *overlooked(relative(events_beside(chosen)), ".json", ".sql"),
    ]
    if not json:
        _show_left_out(left_out)
    with session(database_url, acts=True) as conn:
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
        changes = capture_plan.captures_of(database_url, relative(captures_beside(chosen)), mistakes)
        sinks = sink_plan.sinks_of(conn, relative(sinks_beside(chosen)), Compiler(chosen), loading, mistakes)
        routes = routes_of(relative(notices_beside(chosen)), mistakes)
        rerouted = [] if routes is None else notices.changing(conn, routes)
        contracts = contract_plan.contracts_of(
            conn, relative(events_beside(chosen)), mistakes, accept_incompatible or ()
        )
        mistakes += unwatchable(loading.definitions)
        if mistakes:
            raise at_once(sorted(each(mistakes), key=_place))
        todo = plan_of(conn, loading.definitions)
        todo = [replace(one, because=one.because or _AGAIN) if one.projection in lost else one for one in todo]
        shown_to_some = {name for canary in open_canaries(conn) for name in canary.names} if not wait else ()
        todo = [
            replace(one, because=_ENDS_CANARY) if one.action == "resumed" and one.projection in shown_to_some else one
            for one in todo
        ]
        makes = [*(one.makes for one in contracts), *(one.makes for one in changes), *(one.makes for one in sinks)]
        beside = bool(lost or rerouted) or any(makes)
        nothing = "The live metrics match the files." if beside else NOTHING
        if not json:
            contract_plan.show_contracts(contracts)
            _show_plan(todo)
            capture_plan.show_captures(changes, sql=dry_run)
            sink_plan.show_sinks(sinks)
        if dry_run:
            if json:
                as_json(
                    {
                        "contracts": [contract_plan.contract_change(one) for one in contracts],
                        "plan": [_change(one) for one in todo],
                        "captures": [capture_plan.capture_change(one) for one in changes],
                        "sinks": [sink_plan.sink_change(one) for one in sinks],
                        "routes": rerouted,
                        "scans": [scan_as_dict(one) for one in costly],
                        "left_out": [one.path for one in left_out],
                    }
                )
            else:
                if rerouted:
                    line(f"routes of notices that change: {', '.join(rerouted)}")
                if not any(one.builds or one.action == "resumed" for one in todo):
                    line(nothing)
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
                contracts=contracts,
                promote=not wait,
                recreate_foreign=recreate_views,
            )
        waiting = bool(builds) and wait
        shown = [] if waiting else [view.name for view in views]
        if not json:
            for contract in contracts:
                if contract.makes:
                    line(f"{contract.title}: a contract, {contract.because}")
            for name in sorted(lost):
                line(f"metrics.{name}: its view, recreated")
            tell_outcome(builds, promoted=not wait, silent=silent(conn, builds), nothing=nothing)
            tell_views(conn, shown)
            _show_left_alone(todo)
        costly = scans(conn, shown)
        if not json:
            tell_costs(costly, chosen, loading.definitions)
        delivers = sink_plan.deploy_sinks(conn, sinks)
        told = [] if routes is None else notices.put(conn, routes)
        started = start_all(conn, Compiler(chosen), builds, *given, expect or ()) if canary else []
        tidy(conn)
    made = capture_plan.deploy_captures(database_url, changes)
    if not json:
        for name in made:
            line(f"{name}: captured")
        for name in delivers:
            line(f"{name}: a sink, delivered by workers and `refold deliver`")
        for name in told:
            line(f"{name}: a route of notices, changed")
        capture_plan.show_backfills(changes)
        for one in started:
            tell_started(one)
    if json:
        as_json(
            {
                "contracts": [contract_plan.contract_change(one) for one in contracts],
                "plan": [_change(one) for one in todo],
                "captures": [capture_plan.capture_change(one) for one in changes],
                "sinks": [sink_plan.sink_change(one) for one in sinks],
                "routes": told,
                "canaries": [one.as_dict() for one in started],
                "builds": [build_as_dict(build) for build in builds],
                "views": shown,
                "scans": [scan_as_dict(one) for one in costly],
                "left_out": [one.path for one in left_out],
            }
        )


def _views_beside(projections: Path) -> Path:
    """Return the folder of views beside a folder of projections, relative to the working directory."""
    from refold.model.projection.view_file import views_beside

    return relative(views_beside(projections))


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
