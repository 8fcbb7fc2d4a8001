"""`refold rollback`: return to the builds that were live before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from refold.cli.app import METRICS, app
from refold.cli.builds import (
    DryRun,
    RecreateViews,
    bars,
    build_as_dict,
    files_of,
    tell_outcome,
)
from refold.cli.output import as_json, note, table
from refold.cli.session import AsJson, DatabaseUrl, Projections, folder, session

if TYPE_CHECKING:
    from refold.engine.deployment import rollback as going_back
    from refold.store.builds.build import Build


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
    from refold.engine.deployment import rollback as going_back

    chosen = folder(projections, quiet=True)
    with session(database_url, acts=True) as conn:
        steps = going_back.plan(conn, name)
        if not json:
            table(("PROJECTION", "ACTION", "FROM", "TO", "WHY"), [
                (step.projection, step.action, step.leaves, step.table, step.because) for step in steps
            ])  # fmt: skip
        if dry_run:
            if json:
                as_json({"plan": [_step(step) for step in steps]})
            return
        with bars() as report:
            builds = going_back.rollback(conn, chosen, name, report, recreate_foreign=recreate_views)
    if json:
        as_json({"plan": [_step(step) for step in steps], "builds": [build_as_dict(build) for build in builds]})
    else:
        tell_outcome(builds, promoted=True, nothing="Nothing to roll back to.")
        _tell_files(chosen, builds, [step.projection for step in steps if step.action == "removed"])


def _tell_files(projections: Path, builds: Sequence[Build], removed: Sequence[str]) -> None:
    """Print what the next deploy would undo, because the files define something else than the builds.

    Args:
        projections: folder of projections.
        builds: the builds that are live again.
        removed: projections that are not live any more.
    """
    from refold.model.projection.definition import load

    definitions = load(projections).definitions if projections.is_dir() else {}
    differ = {
        build.projection
        for build in builds
        if build.projection in definitions and definitions[build.projection].fingerprint != build.fingerprint
    }
    for build in builds:
        files = files_of(projections, build.projection)
        known = definitions.get(build.projection)
        if known is not None and known.upstream in differ and known.source == build.definition:
            # Its fingerprint is another because of what it reads, whose file is named.
            continue
        if not files:
            note(f"no file defines {build.projection} here: restore its file to change it, or to deploy it elsewhere")
        elif known is None or known.fingerprint != build.fingerprint:
            told = "of the live build: revert it, or the next `refold deploy` deploys what it has now"
            note(f"{', '.join(map(str, files))} does not have the definition {told}")
    for path in (path for name in removed for path in files_of(projections, name)):
        note(f"{path} still defines it: remove the file too, or the next `refold deploy` creates the metric again")


def _step(step: going_back.Step) -> dict[str, object]:
    return {
        "projection": step.projection,
        "action": step.action,
        "from": step.leaves,
        "to": step.table,
        "because": step.because,
    }
