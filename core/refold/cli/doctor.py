"""`refold doctor`: checks that find problems before they do damage."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from refold.cli.app import FOUND, TRUST, app
from refold.cli.output import as_json, line, table
from refold.cli.session import AsJson, DatabaseUrl, Projections, database
from refold.postgres.connect import connection
from refold.prose import counted

if TYPE_CHECKING:
    from refold.inspect.doctor.check import Check


@app.command(rich_help_panel=TRUST)
def doctor(
    projections: Projections = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Check the database, the server and the metrics. Each check has a verdict and a remedy.

    The command changes nothing. It works before `refold migrate` and for every login; a check that the login may
    not make gets the verdict `unseen`.

    Exit status: 0 nothing to do, 1 a check has the verdict `warn` or `fail`, 2 the checks could not run.

    \b
    Examples:
      refold doctor
      refold doctor --json
      refold doctor --projections metrics/
    """
    from refold.inspect.doctor.doctor import doctor as examine

    url = database(database_url)
    own = Path("projections")
    with connection(url, autocommit=True, application_name="refold doctor") as conn:
        checks = examine(conn, url, projections or (own if own.is_dir() else None))
    if json:
        as_json([asdict(check) for check in checks])
    else:
        show(checks)
    if any(check.verdict in ("warn", "fail") for check in checks):
        raise typer.Exit(FOUND)


def show(checks: list[Check]) -> None:
    """Print checks as text: a summary, all checks, then the remedies."""
    for verdict in ("fail", "warn"):
        names = list(dict.fromkeys(check.name for check in checks if check.verdict == verdict))
        if names:
            line(f"{verdict}: {', '.join(dict.fromkeys(names))}", {"fail": "red", "warn": "yellow"}[verdict])
    if all(check.verdict not in ("warn", "fail") for check in checks):
        unseen = sum(check.verdict == "unseen" for check in checks)
        line("nothing to do" + (f"; {counted(unseen, 'check')} could not be done" if unseen else ""), "green")
    line()
    table(("CHECK", "VERDICT", "FOUND"), [(check.name, check.verdict, check.found) for check in checks])
    # What is mended by one command is told once.
    advice: dict[tuple[str, str], list[str]] = {}
    for check in checks:
        if check.remedy:
            advice.setdefault((check.verdict, check.remedy), []).append(check.name)
    if advice:
        line()
    for (verdict, remedy), names in advice.items():
        line(f"{', '.join(dict.fromkeys(names))}: {remedy}", {"fail": "red", "warn": "yellow"}.get(verdict, ""))
