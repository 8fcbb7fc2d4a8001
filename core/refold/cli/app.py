"""The application that every command registers with, and how its errors reach the user.

A module of commands imports `app` and decorates its functions with `@app.command(...)`; its name goes into
`refold.cli.__init__`, and the command's name into `ORDER`.
"""

from __future__ import annotations

import logging
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Annotated, Any

import psycopg
import typer
from typer.core import TyperGroup

from refold.cli.complaints import complain
from refold.cli.output import err
from refold.errors import RefoldError
from refold.visible import log_on_stderr

FAILED = 2
"""Exit status of a command that could not do what was asked."""
DRIFT = 1
"""Exit status of `reconcile` when a metric differed from its query."""
FOUND = 1
"""Exit status of `doctor`, and of `status` and `incidents` with --exit-code, when something is to be done."""
INTERRUPTED = 130
"""Exit status after Ctrl-C."""

START = "Start here"
METRICS = "Metrics"
DATA = "Events in, figures out"
TRUST = "Run and trust"
DATABASE = "Database"

ORDER = (
    "demo", "init", "migrate",
    "deploy", "explain", "rebuild", "promote", "rollback",
    "ingest", "rejected", "query", "url",
    "worker", "status", "incidents", "report", "doctor", "reconcile", "scrub", "deadletters", "recover",
    "server",
)  # fmt: skip


class Commands(TyperGroup):
    """Lists the commands in the order in which one needs them, and turns errors into messages."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is not None and command.help:
            command.help = unwrapped(command.help)
        return command

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (RefoldError, psycopg.Error) as error:
            complain(error)
            raise typer.Exit(FAILED) from error
        except KeyboardInterrupt:
            err.print("Stopped. What was committed stays; run the command again to go on.")
            raise typer.Exit(INTERRUPTED) from None


def unwrapped(text: str) -> str:
    """A help text with each paragraph on one line, for the terminal to break; blocks after \\b stay as they are."""
    paragraphs = text.strip().split("\n\n")
    return "\n\n".join(p if p.lstrip().startswith("\b") else " ".join(p.split()) for p in paragraphs)


app = typer.Typer(
    name="refold",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,  # they may hold a password
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(wanted: bool) -> None:
    if wanted:
        try:
            number = installed_version("refold")
        except PackageNotFoundError:
            number = "0.0.0 (not installed: run from its source)"
        typer.echo(f"refold {number}")
        raise typer.Exit


@app.callback()
def refold(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Correct metrics from an event log, in the Postgres you already run.

    A metric is one SELECT over the log. refold keeps it up to date, proves it, and heals it.

    \b
    See it work:        refold demo
    Your own project:   refold init shop && cd shop && refold deploy
    Any database:       export REFOLD_DATABASE_URL=postgresql://…
    """
    log_on_stderr()
    logging.getLogger("refold.worker").setLevel(logging.INFO)
