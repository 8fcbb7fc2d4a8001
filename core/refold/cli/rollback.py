"""`refold rollback`: return to the builds that were live before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from refold.cli.app import METRICS, app
from refold.cli.builds import (
    DryRun,
    RecreateViews,
    bars,
    build_as_dict,
    tell_outcome,
)
from refold.cli.output import as_json, note, table
from refold.cli.session import AsJson, DatabaseUrl, Projections, folder, session

if TYPE_CHECKING:
    from refold.engine.deployment import rollback as going_back


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
        with bars() as report:
            builds = going_back.rollback(conn, chosen, name, report, recreate_foreign=recreate_views)
    if json:
        as_json({"plan": [_step(step) for step in steps], "builds": [build_as_dict(build) for build in builds]})
    else:
        tell_outcome(builds, promoted=True, nothing="Nothing to roll back to.")
        note(
            "The files are unchanged: revert them too, or the next `refold deploy` deploys the newer definition again."
        )


def _step(step: going_back.Step) -> dict[str, object]:
    return {
        "projection": step.projection,
        "action": step.action,
        "from": step.leaves,
        "to": step.table,
        "because": step.because,
    }
