"""`refold tokens`: create, list, rotate and revoke the tokens of `refold serve`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from refold.cli.app import DATA, app
from refold.cli.command_group import CommandGroup
from refold.cli.durations import span
from refold.cli.output import as_json, line, note, table
from refold.cli.session import AsJson, DatabaseUrl, session
from refold.store import tokens as store
from refold.store.tokens import Token

tokens = CommandGroup(no_args_is_help=True, help="Create, list, rotate and revoke the tokens of `refold serve`.")
app.add_typer(tokens, name="tokens", rich_help_panel=DATA)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the token.")]
Expires = Annotated[
    str | None, typer.Option("--expires", metavar="SPAN", help="Time after which it ends: 90d. Default: never.")
]


@tokens.command()
def create(
    name: Name,
    write_key: Annotated[
        bool, typer.Option("--write-key", help="A public token, for browsers and apps: it needs --origin or --rate.")
    ] = False,
    source: Annotated[
        str | None, typer.Option("--source", help="Name of the producer in `refold rejected`. Default: NAME.")
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option("--origin", metavar="URL", help="Web origin from which browsers may use it (repeatable)."),
    ] = None,
    rate: Annotated[
        int | None, typer.Option("--rate", min=1, metavar="EVENTS", help="Most events a second, for each process.")
    ] = None,
    expires: Expires = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Create a token. It is printed once: the database keeps only its SHA-256.

    Events that come with a public write key get its name before their ids, so that nobody can take the ids of others.

    \b
    Examples:
      refold tokens create backend
      refold tokens create web --write-key --origin https://shop.example
    """
    with session(database_url, "refold_owner", acts=True) as conn:
        text, token = store.create(
            conn,
            name,
            kind="write_key" if write_key else "secret",
            source=source,
            origins=tuple(origin or ()),
            rate=rate,
            lifetime=None if expires is None else span(expires),
        )
    _tell_once(text, token, json)


@tokens.command("list")
def list_(
    everything: Annotated[bool, typer.Option("--all", help="Include expired and revoked ones.")] = False,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """List tokens, with their last use.

    \b
    Examples:
      refold tokens list
      refold tokens list --all --json
    """
    with session(database_url, "refold_owner") as conn:
        found = [one for one in store.every(conn) if everything or _state(one) == "valid"]
    if json:
        as_json([_told(one) for one in found])
        return
    if not found:
        note("no valid token: `refold tokens create NAME` makes one")
        return
    table(
        ("NAME", "TOKEN", "KIND", "STATE", "SOURCE", "RATE", "ORIGINS", "EXPIRES", "LAST USED"),
        [
            (one.name, one.hint, one.kind, _state(one), one.source, one.rate, one.origins, one.expires_at,
             one.last_used_at)
            for one in found
        ],
        right=("RATE",),
        spare=("SOURCE", "KIND", "EXPIRES"),
    )  # fmt: skip


@tokens.command()
def rotate(
    name: Name,
    overlap: Annotated[
        str, typer.Option("--overlap", metavar="SPAN", help="How long the present token stays valid.")
    ] = "24h",
    expires: Expires = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Create the successor of a token; both are valid until the overlap ends.

    \b
    Examples:
      refold tokens rotate backend --overlap 7d
    """
    lifetime = None if expires is None else span(expires)
    with session(database_url, "refold_owner", acts=True) as conn:
        text, token = store.rotate(conn, name, overlap=span(overlap), lifetime=lifetime)
    _tell_once(text, token, json)


@tokens.command()
def revoke(name: Name, json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """Revoke a token, in all its generations; servers refuse it within five seconds.

    \b
    Examples:
      refold tokens revoke backend
    """
    with session(database_url, "refold_owner", acts=True) as conn:
        ended = store.revoke(conn, name)
    if json:
        as_json([one.hint for one in ended])
        return
    for one in ended:
        line(f"revoked: {one.name}  ({one.hint})")


def _tell_once(text: str, token: Token, json: bool) -> None:
    if json:
        as_json({"token": text, **_told(token)})
        return
    line(text)
    note(f"This is the token {token.name}. It is not shown again.")


def _told(token: Token) -> dict[str, object]:
    return {**asdict(token), "state": _state(token)}


def _state(token: Token) -> str:
    if token.revoked_at is not None:
        return "revoked"
    return "expired" if token.expires_at is not None and token.expires_at <= datetime.now(UTC) else "valid"
