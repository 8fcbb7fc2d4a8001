"""Commands and groups of commands whose help is refold's own text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import CommandFunctionType

from refold.cli.help_text import argument, help_text, option

Panels = dict[str, list[tuple[str, str]]]


class Command(TyperCommand):
    """A command."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(help_text(_usage(self, ctx), self.help or "", _parameters(self, ctx)))


class Group(TyperGroup):
    """A group of commands, which may be a command itself."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        commands = [(name, one.get_short_help_str(200)) for name, one in self.commands.items() if not one.hidden]
        panels: Panels = {"Commands": commands} | _parameters(self, ctx)
        formatter.write(help_text(_usage(self, ctx), self.help or "", panels))


class CommandGroup(typer.Typer):
    """A `typer.Typer` that makes such commands and groups."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**({"cls": Group} | more))

    def command(self, name: str | None = None, **more: Any) -> Callable[[CommandFunctionType], CommandFunctionType]:
        return super().command(name, **({"cls": Command} | more))


def _usage(command: Any, ctx: Any) -> str:
    """Return how a command is called."""
    parts = [ctx.command_path, "[OPTIONS]"]
    for one in command.get_params(ctx):
        if one.param_type_name == "argument":
            name = argument(one.get_help_record(ctx)[0])
            parts.append(name if one.required or name.startswith("[") else f"[{name}]")
    if isinstance(command, TyperGroup):
        parts.append("[COMMAND]" if command.invoke_without_command else "COMMAND")
    return " ".join(parts)


def _parameters(command: Any, ctx: Any) -> Panels:
    """Return the arguments and options of a command with their descriptions, by panel."""
    panels: Panels = {}
    for one in command.get_params(ctx):
        record = one.get_help_record(ctx)
        if record is None:
            continue
        names, told = record
        is_argument = one.param_type_name == "argument"
        panel = getattr(one, "rich_help_panel", None) or ("Arguments" if is_argument else "Options")
        shown = argument(names) if is_argument else option(names)
        panels.setdefault(panel, []).append((shown, " ".join(told.split())))
    return panels
