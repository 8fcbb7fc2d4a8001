"""`refold promote`: switch to builds that were made with --no-promote."""

from __future__ import annotations

from typing import Annotated

import typer

from refold.cli.app import METRICS, app
from refold.cli.builds import (
    RecreateViews,
    bars,
    build_as_dict,
    tell_outcome,
    tell_views,
    tidy,
)
from refold.cli.output import as_json
from refold.cli.session import AsJson, DatabaseUrl, Projections, folder, session
from refold.cli.view_costs import scan_as_dict, tell_costs


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
    from refold.engine.deployment.promote import go_live, views_of
    from refold.engine.publish.scans import scans
    from refold.engine.verify.silent import silent
    from refold.model.projection.definition import load

    chosen = folder(projections, quiet=True)
    with session(database_url, acts=True) as conn:
        with bars() as report:
            builds = go_live(conn, chosen, names or (), report, recreate_foreign=recreate_views)
        views = views_of(conn, builds)
        costly = scans(conn, views)
        if not json:
            tell_outcome(builds, promoted=True, silent=silent(conn, builds), nothing="No build is ready to promote.")
            tell_views(conn, views)
            # Files may have become wrong since the builds were made.
            tell_costs(costly, chosen, load(chosen).definitions if costly and chosen.is_dir() else {})
        tidy(conn)
    if json:
        as_json(
            {
                "builds": [build_as_dict(build) for build in builds],
                "views": views,
                "scans": [scan_as_dict(one) for one in costly],
            }
        )
