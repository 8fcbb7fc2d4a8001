"""Output of commands: rich on a terminal, plain lines elsewhere, JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from refold.model.event.exact_json import document
from refold.prose import room, wrapped
from refold.visible import visible, visible_json

out = Console(highlight=False)
"""Standard output."""
err = Console(stderr=True, highlight=False)
"""Standard error, for notes, progress and errors, so that output can be piped."""


def note(message: str) -> None:
    """Write a note to stderr."""
    text = wrapped(visible(message), room(err.width))
    err.print(Text(text, style="dim" if err.is_terminal else ""), soft_wrap=True)


def line(message: str = "", style: str = "") -> None:
    """Write one line to stdout; markup and control characters in it have no effect."""
    out.print(Text(wrapped(visible(message), room(out.width)), style=style), soft_wrap=True)


def block(text: str) -> None:
    """Write text of several lines to stdout."""
    out.print(Text(visible(text, lines=True)), soft_wrap=True)


def as_json(value: object) -> None:
    """Write a value to stdout as one JSON document."""
    typer.echo(visible_json(document(value, plain, indent=2)))


def plain(value: object) -> Any:
    """Convert a value that JSON has no type for; `document` writes the other Decimals."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal | Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def text_of(value: object) -> str:
    """Return a value as the text of a table cell: empty for NULL, thousands separated, objects as JSON."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, dict):
        return document(value, plain)
    if isinstance(value, list):
        return ", ".join("NULL" if one is None else text_of(one) for one in value)
    return str(value)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Iterable[str] = (),
    spare: Sequence[str] = (),
    title: str | None = None,
    null: str = "",
) -> None:
    """Print a table: rich on a terminal; elsewhere aligned columns of full width, without frames.

    On a terminal the last column takes the remaining width and wraps.

    Args:
        columns: the headings.
        rows: the cells; see `text_of`.
        right: headings of the columns that are aligned to the right.
        spare: headings of columns to omit on a narrow terminal, in this order; a note names them.
        title: a line above.
        null: text to print for NULL.
    """
    to_right = {visible(column) for column in right}
    columns = [visible(column) for column in columns]
    cells = [[null if value is None else visible(text_of(value)) for value in row] for row in rows]
    if not out.is_terminal:
        _plain_table(columns, cells, to_right, title)
        return
    widths = [max(len(row[at]) for row in [list(columns), *cells]) for at in range(len(columns))]
    shown = that_fit(columns, widths, spare, out.width)
    # Where they do not fit even so, all of them break: better than cells that are cut off.
    whole = taken(widths, shown) <= out.width
    drawn = Table(
        title=title, title_justify="left", header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    for at in shown:
        justify: Literal["left", "right"] = "right" if columns[at] in to_right else "left"
        drawn.add_column(columns[at], justify=justify, overflow="fold", no_wrap=whole and at != shown[-1])
    for row in cells:
        drawn.add_row(*(Text(row[at], style=_STYLES.get(row[at], "")) for at in shown))
    out.print(drawn)
    left_out = [column for at, column in enumerate(columns) if at not in shown]
    if left_out:
        note(f"not shown in {out.width} columns: {', '.join(left_out)}")


LAST = 30
"""Least width of the last column, which wraps."""


def that_fit(columns: Sequence[str], widths: Sequence[int], spare: Sequence[str], room: int) -> list[int]:
    """Return the columns that fit into a width, omitting as many of the spare ones as necessary. Pure."""
    shown = list(range(len(columns)))
    for column in spare:
        if taken(widths, shown) <= room:
            break
        shown.remove(list(columns).index(column))
    return shown


def taken(widths: Sequence[int], shown: Sequence[int]) -> int:
    """Return the least width that columns need; the last one may wrap. Pure."""
    *others, last = (widths[at] for at in shown)
    return sum(others) + min(last, LAST) + 2 * len(others)


_STYLES = {"live": "green", "building": "yellow", "new": "green", "changed": "yellow", "drifted": "red",
           "missing": "red", "orphan": "red",
           "ok": "green", "warn": "yellow", "fail": "red"}  # fmt: skip


def _plain_table(columns: Sequence[str], cells: list[list[str]], to_right: set[str], title: str | None) -> None:
    if title:
        typer.echo(title)
    widths = [max(len(row[at]) for row in [list(columns), *cells]) for at in range(len(columns))]
    for row in [list(columns), *cells]:
        parts = [
            cell.rjust(width) if column in to_right else cell.ljust(width)
            for column, cell, width in zip(columns, row, widths, strict=True)
        ]
        typer.echo("  ".join(parts).rstrip())
