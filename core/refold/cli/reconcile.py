"""`refold reconcile`: every metric against its query over the log."""

from __future__ import annotations

import json as json_text
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from refold.builds.build import find
from refold.cli.app import DRIFT, TRUST, app
from refold.cli.output import as_json, line, note, plain, progress, table
from refold.cli.session import AsJson, DatabaseUrl, Projections, folder, session
from refold.errors import InputError
from refold.reconcile import Finding, Report
from refold.reconcile import reconcile as audit

SHOWN = 50
"""Findings that are listed on the screen; --json gives all."""


@app.command(rich_help_panel=TRUST)
def reconcile(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME…]", help="Projections; without any, all.", show_default=False)
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="DATE|TIME",
            help="Only what events since then belong to, by their ts; ISO 8601, UTC where no offset is given.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report what differs, and heal nothing.")] = False,
    projections: Projections = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Prove the metrics against the log, and heal what differs.

    Each table is compared with its query over exactly the events that it has applied: lag is not drift. A row is
    missing, an orphan or drifted; healing recomputes just those, and refold.repairs keeps what stood there before.

    Exit status: 0 no drift, 1 drift was found (healed or not), 2 it could not be done.

    \b
    Examples:
      refold reconcile
      refold reconcile event_counts --dry-run
      refold reconcile --since 2026-01-01 --json
    """
    moment = None if since is None else instant(since)
    with session(database_url) as conn, progress() as bars:
        task = bars.add_task("auditing", total=len(names or find(conn, "b.state = 'live'")), note="")
        report = audit(
            conn,
            folder(projections, quiet=True),
            names or (),
            since=moment,
            dry_run=dry_run,
            report=lambda name, differ: bars.update(task, description=name, advance=1, note=f"{differ:,} differ"),
        )
    if json:
        as_json(
            {
                "drift": report.drift,
                "counts": [
                    {"projection": name, "relation": relation, "kind": kind, "rows": count}
                    for (name, relation, kind), count in sorted(report.counts.items())
                ],
                "audited": report.audited,
                "skipped": [{"projection": name, "because": reason} for name, reason in report.skipped],
                "findings": [_as_dict(finding) for finding in report.findings],
            }
        )
    else:
        _show(report, dry_run=dry_run)
    if report.drift:
        raise typer.Exit(DRIFT)


def instant(text: str) -> datetime:
    """A date or time in ISO 8601; UTC where no offset is given.

    Raises:
        InputError: it is neither.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(
            f"--since {text}: not a date or time", remedy="For example 2026-01-31, 2026-01-31T12:00Z."
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _show(report: Report, *, dry_run: bool) -> None:
    for name, reason in report.skipped:
        note(f"{name} was not audited: {reason}")
    if not report.drift:
        line(f"no drift: {', '.join(report.audited) or 'nothing was audited'}")
        return
    table(
        ("PROJECTION", "RELATION", "KIND", "KEY", "BEFORE", "AFTER"),
        [
            (
                f.projection,
                f.relation,
                f.kind,
                _text(f.key),
                _differing(f.before, f.after),
                _differing(f.after, f.before),
            )
            for f in report.findings[:SHOWN]
        ],
    )
    if report.drift > min(len(report.findings), SHOWN):
        note(f"the first {min(len(report.findings), SHOWN)} of {report.drift:,}; --json lists more")
    fate = "nothing was healed (--dry-run)" if dry_run else "healed; refold.repairs keeps what stood there"
    for (_, relation, kind), count in sorted(report.counts.items()):
        line(f"{relation}: {count:,} {kind}")
    line(f"drift: {report.drift:,} {'row' if report.drift == 1 else 'rows'} differed, {fate}")


def _differing(row: Any, other: Any) -> str:
    """What a side says that the other does not."""
    if row is None:
        return ""
    if not isinstance(row, Mapping) or not isinstance(other, Mapping):
        return _text(row)
    return _text({name: value for name, value in row.items() if other.get(name) != value})


def _text(values: object) -> str:
    return json_text.dumps(values, ensure_ascii=False, default=plain)


def _as_dict(finding: Finding) -> dict[str, object]:
    return {
        "projection": finding.projection,
        "relation": finding.relation,
        "kind": finding.kind,
        "key": finding.key,
        "before": finding.before,
        "after": finding.after,
        "healed": finding.healed,
    }
