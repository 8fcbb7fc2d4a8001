"""`refold dashboard`: pages about the metrics, in a browser."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from refold.cli.app import TRUST, app
from refold.cli.session import DatabaseUrl, Projections, database, folder
from refold.errors import InputError


@app.command(rich_help_panel=TRUST)
def dashboard(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8642,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help="File with the token for evidence and actions; a second line is a token for evidence alone.",
            show_default=False,
        ),
    ] = None,
    trust_proxy: Annotated[
        str,
        typer.Option(
            "--trust-proxy",
            metavar="ADDRESSES",
            help="Proxies whose X-Forwarded-… headers are believed, separated by commas.",
        ),
    ] = "",
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="A name by which a proxy's clients call it (repeatable)."),
    ] = None,
    projections: Projections = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Show in a browser whether the metrics are right, how fresh they are, and what needs a person.

    Without a token the pages are read-only, and show no event, no key and no error text: their connection acts as
    refold_observer. The token adds evidence, and actions: retry or drop dead letters, take on incidents, pause and
    resume sinks. Each is recorded in refold.actions. Beyond this machine a token is required, for every page.

    The server speaks plain HTTP; TLS is for a proxy before it. It answers to addresses and to the names of this
    machine; --allow-host adds the name by which people call the proxy.

    \b
    Examples:
      refold dashboard
      refold dashboard --port 9000 --token-file token
      refold dashboard --trust-proxy 127.0.0.1 --allow-host refold.example
    """
    if find_spec("uvicorn") is None or find_spec("starlette") is None or find_spec("jinja2") is None:
        raise InputError("`refold dashboard` needs further packages", remedy="pip install 'refold[serve]'")
    from refold.dashboard.run import Orders, run
    from refold.dashboard.tokens import read_tokens

    logging.getLogger("refold.dashboard").setLevel(logging.INFO)
    run(
        Orders(
            url=database(database_url),
            host=host,
            port=port,
            tokens=read_tokens(token_file),
            trust_proxy=trust_proxy,
            names=tuple(allow_host or ()),
            projections=folder(projections, quiet=True),
        )
    )
