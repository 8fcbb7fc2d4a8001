"""`refold metrics`: figures for Prometheus."""

from __future__ import annotations

import logging
import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from refold.cli.app import FOUND, TRUST, app
from refold.cli.output import line
from refold.cli.session import DatabaseUrl, database
from refold.errors import InputError


@app.command(rich_help_panel=TRUST)
def metrics(
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            metavar="HOST:PORT",
            help="Serve /metrics, /livez and /readyz there, until Ctrl-C; port 0 takes a free one.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Print the size of the page, and not the page.")] = False,
    openmetrics: Annotated[
        bool, typer.Option("--openmetrics", help="Print OpenMetrics, which has exemplars, not Prometheus text.")
    ] = False,
    projection: Annotated[
        list[str] | None,
        typer.Option("--projection", metavar="NAME", help="Show only this one, in detail (repeatable)."),
    ] = None,
    beyond_loopback: Annotated[
        bool, typer.Option("--beyond-loopback", help="Allow --listen on an address that other machines reach.")
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="A name by which scrapers call --listen (repeatable)."),
    ] = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Show figures of the deployment for Prometheus: events, lag, proofs, latencies, incidents, sinks.

    They are read from the database, for all workers. Counters never fall when old records are removed. The command
    acts as refold_observer: it sees names and numbers, and no event, no key and no text.

    If the database does not answer, the only figure is `refold_up 0`, and the exit status is 1.

    \b
    Examples:
      refold metrics > /var/lib/node_exporter/refold.prom
      refold metrics --check
      refold metrics --listen 127.0.0.1:9464
    """
    logging.getLogger("refold.exporter").setLevel(logging.INFO)
    if listen is not None:
        if check or projection or openmetrics:
            raise InputError(
                "--listen excludes --check, --projection and --openmetrics",
                remedy="Omit one of them; a scraper asks for a format, and for ?projection=NAME.",
            )
        if find_spec("starlette") is None or find_spec("uvicorn") is None:
            raise InputError("`refold metrics --listen` needs further packages", remedy="pip install 'refold[serve]'")
        from refold.exporter.run import run
        from refold.web.listener import address

        host, port = address(listen)
        run(database(database_url), host, port, beyond_loopback=beyond_loopback, names=allow_host or ())
        return
    if beyond_loopback or allow_host:
        raise InputError("--beyond-loopback and --allow-host are for --listen", remedy="Omit them, or add --listen.")
    _print(database(database_url), frozenset(projection or ()), check=check, openmetrics=openmetrics)


def _print(url: str, only: frozenset[str], *, check: bool, openmetrics: bool) -> None:
    from refold.exporter.exporter import Exporter
    from refold.exporter.page import OPENMETRICS, page

    exporter = Exporter(url)
    found = exporter.readings(only)
    exporter.close()
    text = page(found, OPENMETRICS if openmetrics else "", single=bool(only)).text.decode()
    if not check:
        sys.stdout.write(text)
    elif found is not None:
        samples = [one for one in text.splitlines() if not one.startswith("#")]
        line(f"{text.count('# TYPE ')} names, {len(samples):,} samples, {len(text):,} bytes")
    if found is None:
        raise typer.Exit(FOUND)
