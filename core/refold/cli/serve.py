"""`refold serve`: the log's HTTP door."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Annotated

import typer

from refold.cli.app import DATA, app
from refold.cli.session import DatabaseUrl, database
from refold.errors import InputError


@app.command(rich_help_panel=DATA)
def serve(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8080,
    processes: Annotated[int, typer.Option("--processes", "-n", min=1, max=64, help="Number of processes.")] = 1,
    drain_delay: Annotated[
        float,
        typer.Option(
            "--drain-delay",
            min=0,
            max=300,
            metavar="SECONDS",
            help="How long requests are still taken after SIGTERM, while /readyz says 503.",
        ),
    ] = 5.0,
    trust_proxy: Annotated[
        str,
        typer.Option(
            "--trust-proxy",
            metavar="ADDRESSES",
            help="Proxies whose X-Forwarded-For and X-Forwarded-Proto are believed, separated by commas.",
        ),
    ] = "",
    database_url: DatabaseUrl = None,
) -> None:
    """Take events over HTTP: JSON, NDJSON, CloudEvents, and the SDKs of Segment and RudderStack.

    Every answer comes after its commit. Events that arrive together are committed together, without a timer. After
    an answer of 5xx or 429, or none, clients send the same bytes again; what is in the log is answered `duplicate`.
    Clients need a token: `refold tokens create NAME`. The server speaks plain HTTP; TLS is for a proxy before it.

    SIGTERM or Ctrl-C drains: no request is lost. A second signal stops it immediately.

    \b
    Examples:
      refold serve
      refold serve --port 9000 --processes 2
      curl -u "$TOKEN:" --json '{"id": "1", "action": "signup", "ts": 0}' \\
           http://127.0.0.1:8080/v1/events
    """
    if find_spec("uvicorn") is None or find_spec("starlette") is None:
        raise InputError("`refold serve` needs further packages", remedy="pip install 'refold[serve]'")
    from refold.service.http.run import Orders, run

    logging.getLogger("refold.serve").setLevel(logging.INFO)
    run(Orders(database(database_url), host, port, processes, drain_delay, trust_proxy))
