"""The application that every command registers with; it also prints errors for the user.

A module of commands imports `app` and decorates its functions with `@app.command(...)`; the command goes into the list
of `refold.cli.commands`, with the module's name.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from typing import Annotated, Any, TypeGuard, cast

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from refold import __version__, tracing
from refold.cli.command_group import CommandGroup
from refold.cli.commands import COMMANDS, DATA, DATABASE, METRICS, START, TRUST
from refold.cli.help_text import help_text
from refold.errors import Mistakes, RefoldError, ViewError
from refold.visible import log_on_stderr

__all__ = ["DATA", "DATABASE", "DRIFT", "FAILED", "FOUND", "INTERRUPTED", "METRICS", "START", "TRUST", "app"]

FAILED = 2
"""Exit status of a command that failed."""
DRIFT = 1
"""Exit status of `reconcile` when a metric differed from its query, and of `scrub` when the log is damaged."""
FOUND = 1
"""Exit status of `doctor`, and of `status` and `incidents` with --exit-code, when an operator must act."""
UNMADE = 1
"""Exit status of `deploy` when a view in sql/views cannot be created."""
INTERRUPTED = 130
"""Exit status after Ctrl-C."""


class Commands(TyperGroup):
    """The command group: imports a command when it is called, and turns errors into messages."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.registered = self.commands
        """Commands whose modules have been imported."""
        self.commands = {
            name: TyperCommand(name, help=listed.help, rich_help_panel=listed.panel)
            for name, listed in COMMANDS.items()
        }

    def load(self, name: str) -> Any:
        """Import a command and put it in the place of its entry in the list."""
        if name in COMMANDS and name not in self.registered:
            import_module(f"refold.cli.{COMMANDS[name].module}")
            # The commands as they are registered by now.
            self.registered = cast(Commands, get_group(app)).registered
        if name in self.registered:
            self.commands[name] = self.registered[name]
        return self.commands.get(name)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            # Else the list goes out as an error, which rich is imported for.
            typer.echo(ctx.get_help())
            raise typer.Exit(FAILED)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {}
        for name, listed in COMMANDS.items():
            panels.setdefault(listed.panel, []).append((name, listed.help))
        records = [param.get_help_record(ctx) for param in self.get_params(ctx)]
        panels["Options"] = [one for one in records if one is not None]
        usage = " ".join([ctx.command_path, *self.collect_usage_pieces(ctx)])
        formatter.write(help_text(usage, self.help or "", panels))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        self.load(args[0])
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            with tracing.exporting():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            from refold.cli.output import note

            note("Stopped. Committed work is kept; run the command again to continue.")
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            if not _told(error):
                raise
            from refold.cli.complaints import complain

            complain(error)
            raise typer.Exit(status_of(error)) from error


def _told(error: Exception) -> TypeGuard[RefoldError]:
    """Return whether an error is shown as a message without a traceback: refold's own, or the database's."""
    # Where nothing has imported psycopg, none is its.
    psycopg = sys.modules.get("psycopg")
    return isinstance(error, RefoldError) or (psycopg is not None and isinstance(error, psycopg.Error))


def status_of(error: Exception) -> int:
    """Return the exit status of a command that ends with this error."""
    errors = error.errors if isinstance(error, Mistakes) else (error,)
    return UNMADE if all(isinstance(one, ViewError) for one in errors) else FAILED


app = CommandGroup(
    name="refold",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,  # they may hold a password
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"refold {__version__}")
        raise typer.Exit


@app.callback()
def refold(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Correct metrics from an event log, in the Postgres you already run.

    A metric is one SELECT over the log. refold keeps it up to date, audits it, and repairs it.

    \b
    Try it:             refold demo
    Your own project:   refold init shop && cd shop && refold deploy
    Any database:       export REFOLD_DATABASE_URL=postgresql://…
    """
    log_on_stderr()
    logging.getLogger("refold.worker").setLevel(logging.INFO)
