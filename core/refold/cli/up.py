"""`refold up`: all of refold in one command, for a person at a terminal."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Annotated

import psycopg
import typer

from refold.cli.app import START, app
from refold.cli.output import line, note
from refold.cli.session import VARIABLE, DatabaseUrl, database
from refold.errors import InputError
from refold.store.schema.resources import projections_dir

HOST = "127.0.0.1"
log = logging.getLogger("refold.up")


@app.command(rich_help_panel=START)
def up(
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port of the dashboard; 0 takes a free one.")
    ] = 8642,
    http_port: Annotated[
        int, typer.Option("--http-port", min=0, max=65535, help="Port for events over HTTP; 0 takes a free one.")
    ] = 8080,
    processes: Annotated[int, typer.Option("--processes", "-n", min=1, max=64, help="Number of workers.")] = 1,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help="File with the dashboard's token for evidence and actions.",
            show_default=False,
        ),
    ] = None,
    projections: Annotated[
        Path | None,
        typer.Option(
            "--projections",
            metavar="DIR",
            help="Folder of projections. Default: ./projections if it exists, else the projections that come with "
            "refold.",
            show_default=False,
        ),
    ] = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Run all of refold here: migrate, deploy the files, then workers, events over HTTP and the dashboard.

    Everything listens on this machine alone, in one terminal with one log. Ctrl-C stops all of it: no request is lost,
    and no page half done. Without a --database-url that includes the embedded PostgreSQL, if this command started it
    and no other `refold up` uses it; its data stays. In production each part is a command of its own: refold migrate,
    deploy, worker, serve, dashboard.

    \b
    Examples:
      refold up                         in a project's directory, or anywhere
      refold up --processes 2 --database-url postgresql://me@db/shop
    """
    missing = [name for name in ("uvicorn", "starlette", "jinja2") if find_spec(name) is None]
    if missing:
        raise InputError("`refold up` needs further packages", remedy="pip install 'refold[serve]'")
    from refold.dashboard import run as pages
    from refold.dashboard.tokens import read_tokens
    from refold.service.duties.registry import DUTIES
    from refold.service.http import run as door
    from refold.service.processes import Job, supervise
    from refold.service.worker import pool
    from refold.store.schema.migrate import migrate
    from refold.web.listener import listening, origin

    # Once: a pipe (`<(…)`) has nothing for a second reader.
    tokens = read_tokens(token_file)
    own = projections or Path("projections")
    with ExitStack() as stack:
        stack.enter_context(_sigterm_as_ctrl_c())
        with _option("--http-port"):
            events = stack.enter_context(listening(HOST, http_port))
        with _option("--port"):
            shown = stack.enter_context(listening(HOST, port))
        url = stack.enter_context(_server(database_url))
        migrate(url)
        used = _deployed(url, projections, own)
        logging.getLogger("refold.up").setLevel(logging.INFO)
        line()
        line(f"dashboard   {origin(shown)}")
        line(f"events      {origin(events)}/v1/events")
        line("`refold tokens create NAME` makes a token for events. Ctrl-C stops everything.")
        line()
        supervise(
            [
                *[Job(pool.child, (pool.Orders(url, used, duties=DUTIES, deliver=True), logging.INFO), "worker")]
                * processes,
                # The sockets stay open here: requests wait while a child starts, and nobody else takes its port.
                Job(door.only_child, (door.Orders(url, drain_delay=0.0), events), "HTTP door"),
                Job(pages.child, (pages.Orders(url, tokens=tokens, projections=used), shown), "dashboard"),
            ],
            log=log,
            told_text="stopping; no request is lost, and no page half done",
        )
    line("Stopped.")


def _deployed(url: str, projections: Path | None, own: Path) -> Path:
    """Deploy the user's files, or into an empty database those that come with refold; return the folder."""
    from refold.cli.deploy import deploy

    starters = projections is None and not own.is_dir()
    if starters:
        with psycopg.connect(url) as conn:
            if conn.execute("SELECT FROM refold.builds WHERE state = 'live' LIMIT 1").rowcount:
                note("there is no folder ./projections: the metrics stay as they are")
                return projections_dir()
        note("there is no folder ./projections: these metrics come with refold (`refold init DIR` begins your own)")
    deploy(
        projections=None if starters else own, starters=starters, dry_run=False, no_promote=False,
        recreate_views=False, json=False, database_url=url,
    )  # fmt: skip
    return projections_dir() if starters else own


@contextmanager
def _option(name: str) -> Iterator[None]:
    """Name the option of this command in an error about a port."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error), remedy=f"Choose another {name}; 0 takes a free one.") from None


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM end a block as Ctrl-C does: else an embedded server that was just started would stay."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _server(url: str | None) -> Iterator[str]:
    """Yield the URL of the database.

    An embedded server that was started here ends with the command, unless another `refold up` uses it.
    """
    if url is not None or VARIABLE in os.environ:
        yield database(url)
        return
    from refold.embedded.together import used_together

    def kept() -> None:
        note("another `refold up` uses PostgreSQL, which stays; `refold server stop` ends it")

    with used_together(kept=kept) as server:
        note(f"PostgreSQL runs in {server.directory}")
        yield server.url
