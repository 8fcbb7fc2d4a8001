"""`refold incidents`: what went wrong, when it began, was noticed and was over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from difflib import get_close_matches
from typing import Annotated, Any

import psycopg
import typer

from refold.cli.app import TRUST, app
from refold.cli.output import as_json, line, table
from refold.cli.session import AsJson, DatabaseUrl, session
from refold.cli.span import duration, span
from refold.errors import InputError
from refold.incidents import KINDS, Incident, find


@app.command(rich_help_panel=TRUST)
def incidents(
    open_only: Annotated[bool, typer.Option("--open", help="Only those that are not over.")] = False,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help=f"Only of one kind: {', '.join(KINDS)}.")
    ] = None,
    since: Annotated[
        str, typer.Option("--since", metavar="SPAN", help="Those open or over since then: 90m, 12h, 7d, 2w.")
    ] = "7d",
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """List what went wrong: since when, who noticed it and when, when it was over, and the evidence.

    Workers open incidents and resolve them by themselves. Exit status 0, whether there are any or not.

    \b
    Examples:
      refold incidents
      refold incidents --open
      refold incidents --kind held_back --since 30d --json
    """
    condition, parameters = "coalesce(i.resolved_at, now()) >= now() - %s", [span(since)]
    if open_only:
        condition += " AND i.resolved_at IS NULL"
    if kind is not None:
        condition += " AND i.kind = %s"
    with session(database_url) as conn:
        given = [] if kind is None else [known_kind(kind)]
        found = find(conn, condition, *parameters, *given)
        now = _now(conn)
    if json:
        as_json([asdict(one) for one in found])
    elif found:
        show(found, now)
    else:
        line(f"no {'open ' if open_only else ''}incidents since {span(since)} ago")


def known_kind(kind: str) -> str:
    """A kind of incident by its name.

    Raises:
        InputError: there is none of that name.
    """
    name = kind.replace("-", "_")
    if name not in KINDS:
        near = get_close_matches(name, KINDS, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"no kind of incident is called {kind}", remedy=f"{meant}Kinds: {', '.join(KINDS)}.")
    return name


def show(found: list[Incident], now: datetime) -> None:
    """Prints incidents for people, newest last."""
    table(
        ("NO", "KIND", "SUBJECT", "STARTED", "NOTICED", "OVER", "EVIDENCE"),
        [
            (
                one.incident_id,
                one.kind,
                one.subject,
                one.started_at,
                "after " + duration((one.detected_at - one.started_at).total_seconds()),
                _over(one, now),
                told(one.evidence),
            )
            for one in found
        ],
        right=("NO",),
    )


def _over(one: Incident, now: datetime) -> str:
    if one.resolved_at is None:
        return "open for " + duration((now - one.started_at).total_seconds())
    return f"after {duration((one.resolved_at - one.started_at).total_seconds())}, by {one.resolved_by}"


def told(evidence: Mapping[str, Any]) -> str:
    """Evidence as a line; what is empty is left out."""
    return ", ".join(
        f"{name} {' '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in evidence.items()
        if value not in (None, "", [])
    )


def _now(conn: psycopg.Connection) -> datetime:
    row = conn.execute("SELECT now()").fetchone()
    assert row is not None
    at: datetime = row[0]
    return at
