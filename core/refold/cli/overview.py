"""The text of `refold --help`: all commands, grouped by purpose.

The text is built from plain lines, without further imports. Typer's own rendering imports rich with its Markdown,
syntax highlighting and tracebacks, which takes more than half of the start time.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence

import typer

from refold.prose import room, wrapped

WIDEST = 110
"""Most characters in a line, on a terminal of any width."""


def overview(
    usage: str, about: str, panels: Mapping[str, Sequence[tuple[str, str]]], options: Sequence[tuple[str, str]]
) -> str:
    """Return the list of commands as text, in lines that fit.

    Args:
        usage: usage line of the program.
        about: description of the program; a paragraph after a line with \\b keeps its lines.
        panels: commands with their help, by heading.
        options: options of the program itself.
    """
    width = min(room(shutil.get_terminal_size().columns), WIDEST)
    parts = [f"Usage: {usage}", *_paragraphs(about, width)]
    column = max(len(name) for entries in panels.values() for name, _ in entries)
    parts += [_section(heading, entries, column, width) for heading, entries in panels.items()]
    parts.append(_section("Options", options, max(len(name) for name, _ in options), width))
    return "\n\n".join(parts) + "\n"


def _paragraphs(text: str, width: int) -> list[str]:
    """Return paragraphs in lines that fit; preformatted paragraphs stay as they are."""
    found = []
    for part in text.split("\n\n"):
        laid_out = part.startswith("\b")
        found.append(part.lstrip("\b\n") if laid_out else wrapped(" ".join(part.split()), width, indent=0))
    return found


def _section(heading: str, entries: Iterable[tuple[str, str]], column: int, width: int) -> str:
    """Return a heading with a column of names and their descriptions."""
    lines = [typer.style(heading, bold=True)]
    for name, told in entries:
        shown = wrapped(f"  {name:<{column}}  {told}", width, indent=column + 4)
        lines.append(shown.replace(name, typer.style(name, fg="cyan"), 1))
    return "\n".join(lines)
