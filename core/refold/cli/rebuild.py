"""`refold rebuild`: build metrics again from the log."""

from __future__ import annotations

from typing import Annotated

import typer

from refold.cli.app import METRICS, app
from refold.cli.builds import (
    NoPromote,
    bars,
    build_as_dict,
    tell_outcome,
    tidy,
)
from refold.cli.output import as_json
from refold.cli.session import AsJson, DatabaseUrl, Projections, folder, session


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
    from refold.engine.deployment.deploy import rebuild as rebuild_builds

    with session(database_url, acts=True) as conn, bars() as report:
        builds = rebuild_builds(
            conn, folder(projections, quiet=True), names, report, cascade=cascade, promote=not no_promote
        )
        tidy(conn)
    if json:
        as_json({"builds": [build_as_dict(build) for build in builds]})
    else:
        tell_outcome(builds, promoted=not no_promote, nothing="Nothing to rebuild.")
