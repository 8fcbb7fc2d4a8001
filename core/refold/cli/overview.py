"""What `refold --help` prints: all commands by what they are for.

In plain lines, which need nothing. Typer's own drawing imports rich with its Markdown, its syntax highlighting and its
tracebacks: more than half of the time until the first line.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence

import typer

from refold.prose import room, wrapped

WIDEST = 110
"""Characters in a line, on a terminal of any width."""


def overview(
    usage: str, about: str, panels: Mapping[str, Sequence[tuple[str, str]]], options: Sequence[tuple[str, str]]
) -> str:
    """The list of commands as text, in lines that fit.

    Args:
        usage: how a command is called.
        about: what the program is; a paragraph after a line with \\b keeps its lines.
        panels: commands with their help, by the heading under which they stand.
        options: of the program itself.
    """
    width = min(room(shutil.get_terminal_size().columns), WIDEST)
    parts = [f"Usage: {usage}", *_paragraphs(about, width)]
    column = max(len(name) for entries in panels.values() for name, _ in entries)
    parts += [_section(heading, entries, column, width) for heading, entries in panels.items()]
    parts.append(_section("Options", options, max(len(name) for name, _ in options), width))
    return "\n\n".join(parts) + "\n"


def _paragraphs(text: str, width: int) -> list[str]:
    """Paragraphs in lines that fit; what is laid out by hand as it is."""
    found = []
    for part in text.split("\n\n"):
        laid_out = part.startswith("\b")
        found.append(part.lstrip("\b\n") if laid_out else wrapped(" ".join(part.split()), width, indent=0))
    return found


def _section(heading: str, entries: Iterable[tuple[str, str]], column: int, width: int) -> str:
    """What stands under a heading: names in a column, what they are beside them."""
    lines = [typer.style(heading, bold=True)]
    for name, told in entries:
        shown = wrapped(f"  {name:<{column}}  {told}", width, indent=column + 4)
        lines.append(shown.replace(name, typer.style(name, fg="cyan"), 1))
    return "\n".join(lines)
