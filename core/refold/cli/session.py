"""Choice of the database that a command works on, and the connection to it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import psycopg
import typer
from psycopg.conninfo import conninfo_to_dict

from refold.cli.output import note
from refold.errors import InputError
from refold.postgres.connect import EVIDENCE, INSPECTORS, READERS, Role, connect
from refold.postgres.lock_waits import LockWatch
from refold.postgres.lock_waits import log as lock_log
from refold.postgres.session import COMMANDS
from refold.store.schema.installed import check
from refold.store.schema.resources import projections_dir

__all__ = ["EVIDENCE", "INSPECTORS", "READERS", "AsJson", "DatabaseUrl", "Projections", "database", "folder", "session"]

VARIABLE = "REFOLD_DATABASE_URL"

DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        envvar=VARIABLE,
        metavar="URL",
        help="libpq URL of the database. Default: refold's embedded server, started when needed.",
        show_default=False,
        rich_help_panel="Connection",
    ),
]
Projections = Annotated[
    Path | None,
    typer.Option(
        "--projections",
        metavar="DIR",
        help="Folder of projections. Default: ./projections if it exists, else the projections that come with refold.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


_NO_URL = "the database URL is not a libpq URL"
_A_URL = (
    "Write it like postgresql://user:password@host:5432/database. Percent-encode special characters in the "
    "password: @ as %40."
)


def database(url: str | None) -> str:
    """Return the given URL, else start the embedded server, install the schema there and return its URL.

    Raises:
        InputError: the URL is empty or malformed. The message does not repeat it: it may hold a password.
    """
    if url is None:
        # Whoever sets it means a server of theirs: a variable that the shell did not know, say.
        if VARIABLE in os.environ:
            raise InputError(
                f"{VARIABLE} is set, but empty",
                remedy=f"Set it to the URL of your database, or unset {VARIABLE} for the embedded server.",
            )
        return _embedded()
    if not url.strip():
        raise InputError(
            "the database URL is empty", remedy="Give the URL of a database, or omit it to use the embedded server."
        )
    try:
        hosts = str(conninfo_to_dict(url).get("host") or "")
    except psycopg.ProgrammingError as error:
        raise InputError(_NO_URL, remedy=_A_URL) from error
    # An @ that was not encoded: what stands before it is the end of the password, and must not be repeated.
    if "@" in hosts and not hosts.startswith(("/", "@")):
        raise InputError(_NO_URL, remedy=_A_URL)
    return url


def _embedded() -> str:
    # Whoever names a database of their own needs neither.
    from refold.embedded import EmbeddedServer, default_directory
    from refold.embedded.postmaster import Postmaster

    directory = default_directory()
    if Postmaster.find(directory / "data") is None:
        note(f"starting the embedded PostgreSQL in {directory} (stop it with `refold server stop`)")
    url = EmbeddedServer.start().url
    with psycopg.connect(url, autocommit=True) as conn:
        installed = conn.execute("SELECT to_regclass('refold.settings') IS NOT NULL").fetchone()
    if installed != (True,):
        from refold.store.schema.migrate import migrate

        migrate(url)
    return url


class _Notes(logging.Handler):
    """Writes what a command has to wait for as a note."""

    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


lock_log.addHandler(_Notes())
lock_log.propagate = False


@contextmanager
def session(
    url: str | None,
    role: Role | Sequence[Role] | None = "refold_worker",
    *,
    name: str = "refold",
    checked: bool = True,
    acts: bool = False,
) -> Iterator[psycopg.Connection]:
    """Open a connection in autocommit mode to a database on which refold is installed.

    Args:
        url: URL given by the user.
        role: role to act as; `READERS`, `INSPECTORS` or `EVIDENCE` for a command that only reads.
        name: application_name of the session in pg_stat_activity.
        checked: refuse a database whose cursors belong to another cluster.
        acts: record in `refold.actions` that a person ran this command, and what came of it. A dry run does not act.

    Raises:
        refold.errors.DatabaseError: see `refold.store.schema.installed.check`.
    """
    works = role in ("refold_worker", READERS, INSPECTORS, EVIDENCE)
    settings = COMMANDS if works else None
    conn = connect(database(url), role, autocommit=True, application_name=name, settings=settings)
    try:
        with LockWatch(conn):
            if checked and works:
                check(conn)
            with _recorded(conn) if acts else nullcontext():
                yield conn
    finally:
        conn.close()


_NOT_TOLD = ("database_url", "json", "yes", "person", "person_file", "also")
"""Options that say nothing of what is done, hold a password, or name a person who is erased."""


@contextmanager
def _recorded(conn: psycopg.Connection) -> Iterator[None]:
    """Record the command that runs."""
    from refold.store.actions import recorded

    # From 0.29 on typer brings a click of its own.
    click = import_module("typer._click.globals" if find_spec("typer._click") else "click")
    context: typer.Context = click.get_current_context()
    if context.params.get("dry_run"):
        yield
        return
    command = context.command_path.removeprefix("refold ")
    given = {
        name: value if isinstance(value, bool | int | float) else _words(value)
        for name, value in context.params.items()
        if name not in _NOT_TOLD and value not in (None, False, (), [])
    }
    with recorded(conn, command, given):
        yield


def _words(value: object) -> str | list[str]:
    return [str(one) for one in value] if isinstance(value, list | tuple) else str(value)


def folder(given: Path | None, *, quiet: bool = False) -> Path:
    """Return the folder of projections to use; print a note when it is not the user's own."""
    if given is not None:
        return given
    own = Path("projections")
    if own.is_dir():
        return own
    if not quiet:
        note("no ./projections here: using the projections that come with refold (`refold init DIR` creates your own)")
    return projections_dir()


def relative(folder: Path) -> Path:
    """Return a folder relative to the working directory, if it is below."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def own_folder(given: Path | None, *, starters: bool) -> Path:
    """Return the folder of projections to deploy; those that come with refold are deployed only on request.

    Args:
        given: folder named by the user.
        starters: deploy the projections that come with refold.

    Raises:
        InputError: the folder does not exist, or the user named two.
    """
    if starters and given is not None:
        raise InputError("--starters and --projections exclude each other", remedy="Omit one of them.")
    if starters:
        return projections_dir()
    own = given or Path("projections")
    if own.is_dir():
        return own
    where = own.absolute()
    above = [] if given else [str(one) for one in where.parents if (one / own.name).is_dir()]
    raise InputError(
        f"there are no projections to deploy: {where} {'is not a folder' if where.exists() else 'does not exist'}",
        remedy=(f"There is one in {above[0]}: cd {above[0]}. " if above else "")
        + "Change to your project's directory, or name its folder with --projections DIR. `refold init DIR` creates a "
        "project; --starters deploys the metrics that come with refold.",
    )
