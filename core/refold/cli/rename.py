"""`refold rename`: rename a metric without rebuilding it."""

from __future__ import annotations

from typing import Annotated

import typer

from refold.cli.app import METRICS, app
from refold.cli.builds import (
    DryRun,
    files_of,
)
from refold.cli.output import as_json, line, note
from refold.cli.session import AsJson, DatabaseUrl, Projections, folder, session


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
    from refold.engine.deployment import rename as renaming
    from refold.model.sink.sink_file import load_sinks, sinks_beside
    from refold.sinks.kinds.registry import kinds

    chosen = folder(projections, quiet=True)
    with session(database_url, acts=True) as conn:
        renamed = (renaming.plan if dry_run else renaming.rename)(conn, chosen, old, new)
    if json:
        as_json(
            {"from": old, "to": new, "table": renamed.build.table_name, "views": renamed.views, "done": not dry_run}
        )
        return
    line(f"{'would be renamed' if dry_run else 'renamed'}: {old} is {new}  ({renamed.build.table_name})")
    for view in renamed.views:
        note(f"the view {view} reads it and keeps working; if a file defines that view, write metrics.{new} there")
    for path in files_of(chosen, old):
        note(f"{path} still defines {old}: rename the file too, or the next `refold deploy` makes it a metric")
    for sink in load_sinks(sinks_beside(chosen), tuple(kinds()), []):
        if sink.projection == old:
            note(f'{sink.path} still delivers {old}: write projection = "{new}" there before the next `refold deploy`')
