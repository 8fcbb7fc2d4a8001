"""`refold notices`: the routes of notices, what they were told, and tests."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from refold.cli.app import FOUND, TRUST, app
from refold.cli.command_group import CommandGroup
from refold.cli.output import as_json, line, note, table
from refold.cli.session import READERS, AsJson, DatabaseUrl, session
from refold.errors import RefoldError
from refold.store import notices as store
from refold.store.incidents import inspects

notices = CommandGroup(no_args_is_help=True, help="List and test the routes that are told of incidents.")
app.add_typer(notices, name="notices", rich_help_panel=TRUST)


@notices.command("list")
def list_(
    number: Annotated[int, typer.Option("--number", min=1, max=10_000, help="Latest notices to list.")] = 20,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """List routes with their state, and the latest notices.

    \b
    Examples:
      refold notices list
      refold notices list --json --number 500
    """
    with session(database_url, READERS) as conn:
        store.insist_on_tables(conn)
        full = inspects(conn)
        routes = store.routes(conn, definitions=full)
        latest = store.latest(conn, number, errors=full)
    if json:
        told = [{name: value for name, value in asdict(one).items() if name != "definition"} for one in routes]
        as_json({"routes": told, "notices": [asdict(one) for one in latest]})
        return
    if not routes:
        note("no route: write notices.toml, and run `refold deploy`")
        return
    table(
        ("ROUTE", "KIND", "FROM LEVEL", "STATE"),
        [(one.name, one.kind, one.least, f"{one.failures} failures" if one.failures else "works") for one in routes],
    )
    for route in routes:
        if route.error:
            note(f"{route.name}: {route.error}")
    if latest:
        line()
        table(
            ("NOTICE", "ROUTE", "LEVEL", "CHANGE", "INCIDENT", "SENT"),
            [
                (one.notice_id, one.route, one.level, one.change, f"{one.kind} {one.subject}", _sent(one))
                for one in latest
            ],
            right=("NOTICE",),
        )


@notices.command()
def test(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="ROUTE", help="Routes to test. Default: all.", show_default=False)
    ] = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Send a test over routes, from this host, and say what each receiver answers.

    Exit status: 0 all confirmed, 1 one did not.

    \b
    Examples:
      refold notices test
      refold notices test pager
    """
    from refold.service.duties.notices import sender

    answers: list[dict[str, object]] = []
    with session(database_url) as conn:
        store.insist_on_tables(conn)
        for route in [store.known(conn, name) for name in names] if names else store.routes(conn):
            try:
                given = sender(conn, route)
                try:
                    given.test(datetime.now(UTC))
                finally:
                    given.close()
                answers.append({"route": route.name, "confirmed": True, "error": None})
            except RefoldError as error:
                answers.append({"route": route.name, "confirmed": False, "error": str(error)})
    if json:
        as_json(answers)
    else:
        for one in answers:
            line(f"{one['route']}: {'confirmed' if one['confirmed'] else one['error']}")
        if not answers:
            note("no route: write notices.toml, and run `refold deploy`")
    if not all(one["confirmed"] for one in answers):
        raise typer.Exit(FOUND)


def routes_of(file: Path, mistakes: list[RefoldError]) -> dict[str, tuple[str, str, str]] | None:
    """Return the routes that a file names, and add its mistakes; None without a file: routes stay as they are."""
    from refold.sinks.notices import load_routes

    return load_routes(file, mistakes) if file.is_file() else None


def _sent(one: store.Notice) -> str:
    if one.left_out:
        return "refused" if one.error else "not needed"
    if one.sent_at is not None:
        return f"{one.sent_at:%Y-%m-%d %H:%M:%S}"
    return f"waits, tried {one.attempts} times" if one.attempts else "waits"
