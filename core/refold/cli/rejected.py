"""`refold rejected`: list the input that was refused."""

from __future__ import annotations

from typing import Annotated

import typer

from refold.cli.app import DATA, app
from refold.cli.output import as_json, note, out, table
from refold.cli.session import INSPECTORS, AsJson, DatabaseUrl, session


@app.command(rich_help_panel=DATA)
def rejected(
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most records to list, newest first.")] = 50,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """List the input that was rejected: conflicts and invalid events, each with its reason, source and line.

    \b
    Examples:
      refold rejected
      refold rejected --json --limit 1000
    """
    with session(database_url, INSPECTORS) as conn:
        found = conn.execute(
            """
            SELECT source, line, answer, reason, raw, times, first_seen, last_seen
            FROM refold.rejected ORDER BY rejected_id DESC LIMIT %s
            """,
            (limit,),
        ).fetchall()
    names = ("source", "line", "answer", "reason", "raw", "times", "first_seen", "last_seen")
    if json:
        as_json([dict(zip(names, row, strict=True)) for row in found])
    elif not found:
        note("nothing was rejected")
    else:
        rows = [
            (source, at, answer, reason, times, _short(raw)) for source, at, answer, reason, raw, times, *_ in found
        ]
        table(("SOURCE", "LINE", "ANSWER", "REASON", "TIMES", "RAW"), rows, right=("LINE", "TIMES"))


def _short(raw: str, width: int = 80) -> str:
    """Return raw text: on a terminal its beginning, elsewhere all of it."""
    shown = raw.strip("\r\n")
    return shown if len(shown) <= width or not out.is_terminal else shown[: width - 1] + "…"
