"""The text of `refold --help`, and of each command's `--help`.

It is built from plain lines, without further imports. Typer's own rendering imports rich with its Markdown, syntax
highlighting and tracebacks, which takes more than half of the start time; and in a narrow terminal it breaks the names
of options in the middle.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence

import typer

from refold.prose import room, wrapped

WIDEST = 110
"""Most characters in a line, on a terminal of any width."""
LEAST = 22
"""Characters that a description beside a name must have; with less room it stands below."""
INDENT = 6
"""Indentation of a description below its name, in characters."""
_TYPE = re.compile(r" <list\[\w+\]>$| <str>$")
"""The type of an argument, which its name and description say better."""

Entries = Sequence[tuple[str, str]]
"""Names with their descriptions."""


def help_text(usage: str, about: str, panels: Mapping[str, Entries]) -> str:
    """Return the help of a program or command as text, in lines that fit and break only at words.

    Args:
        usage: how it is called.
        about: description; a paragraph after a line with \\b keeps its lines.
        panels: commands, arguments and options, by heading.
    """
    width = min(room(shutil.get_terminal_size().columns), WIDEST)
    parts = [wrapped(f"Usage: {usage}", width, indent=INDENT), *_paragraphs(about, width)]
    # Half of the line is for names; longer ones stand above their descriptions.
    lengths = [len(name) for entries in panels.values() for name, _ in entries if len(name) <= width // 2 - 4]
    column = max(lengths, default=0)
    parts += [_section(heading, entries, column, width) for heading, entries in panels.items()]
    return "\n\n".join(parts) + "\n"


def argument(name: str) -> str:
    """Return the name of an argument as help shows it. Pure.

    Args:
        name: its name and type, as typer writes them.
    """
    return _TYPE.sub("", name)


def option(names: str) -> str:
    """Return the names of an option and its value as help shows them. Pure."""
    return names.replace(" range>", ">").replace(" <str>", " TEXT")


def _paragraphs(text: str, width: int) -> list[str]:
    """Return paragraphs in lines that fit; preformatted paragraphs stay as they are."""
    found = []
    for part in text.strip().split("\n\n"):
        laid_out = part.lstrip().startswith("\b")
        found.append(part.lstrip(" \b\n") if laid_out else wrapped(" ".join(part.split()), width, indent=0))
    return found


def _section(heading: str, entries: Entries, column: int, width: int) -> str:
    """Return a heading with a column of names and their descriptions."""
    beside = column + 4 + LEAST <= width
    indent = column + 4 if beside else INDENT
    lines = [typer.style(heading, bold=True)]
    for name, told in entries:
        if beside and len(name) <= column:
            shown = wrapped(f"  {name:<{column}}  {told}", width, indent=indent)
        else:
            above, below = wrapped(f"  {name}", width, indent=4), wrapped(" " * indent + told, width, indent=indent)
            shown = f"{above}\n{below}"
        lines.append(shown.replace(name, typer.style(name, fg="cyan"), 1))
    return "\n".join(lines)
