"""`refold drop`: stop updating metrics and remove their views."""

from __future__ import annotations

from typing import Annotated

import typer

from refold.cli.app import METRICS, app
from refold.cli.builds import (
    DryRun,
    build_as_dict,
    files_of,
    tidy,
)
from refold.cli.output import as_json, line, note, table
from refold.cli.session import AsJson, DatabaseUrl, Projections, folder, session


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
    from refold.engine.deployment import drop as removal

    chosen = folder(projections, quiet=True)
    with session(database_url, acts=True) as conn:
        ended = removal.plan(conn, names)
        if not json:
            table(("PROJECTION", "ACTION", "TABLE", "WHY"), [
                (one.build.projection, "dropped", one.build.table_name, one.because) for one in ended
            ])  # fmt: skip
        if not dry_run:
            ended = removal.drop(conn, names)
            tidy(conn)
    if json:
        as_json({"dropped": [build_as_dict(one.build) for one in ended], "done": not dry_run})
        return
    if not dry_run:
        first = ended[0].build.projection
        line(f"{', '.join(dict.fromkeys(one.build.projection for one in ended))}: dropped")
        note(f"The tables are kept for now: `refold rollback {first}` restores all metrics that were dropped together.")
    for path in (path for name in names for path in files_of(chosen, name)):
        note(f"{path} still defines it: remove the file too, or the next `refold deploy` creates the metric again")
