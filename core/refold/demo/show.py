"""The output of the demo: colours and a live board on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from refold.demo.board import WIDE, Frame, board, line
from refold.prose import room, wrapped


@dataclass(frozen=True, slots=True)
class Glyphs:
    """Signs; `ASCII` is the variant for terminals without Unicode."""

    good: str = "✓"
    bad: str = "✗"
    arrow: str = "→"


TOLD = 12
"""Most differences of a comparison that are printed."""

ASCII = Glyphs("ok", "XX", "->")


class Show:
    """Prints the demo.

    Args:
        console: the console to print on; styles and the live board need a terminal that can move its cursor.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.is_terminal and not console.is_dumb_terminal and console.file.isatty()
        self.glyphs = ASCII if console.options.ascii_only else Glyphs()
        self.failures: list[str] = []

    def print(self, text: str = "") -> None:
        """Print a line with rich's markup."""
        self._console.print(text, soft_wrap=not self._live)

    def ready(self, what: str, how: str, seconds: float) -> None:
        """Print that a part of the setup is ready, with its duration in seconds."""
        if not self._live:
            self._plain(f"{self.glyphs.good} {what:<16} {how} ({seconds:.1f} s)", indent=19)
            return
        row = Table.grid(padding=(0, 1, 0, 0))
        row.width = min(self._console.width, WIDE)
        row.add_column(width=2)
        row.add_column(width=16)
        row.add_column(ratio=1, overflow="fold")
        row.add_column(justify="right")
        row.add_row(Text(self.glyphs.good, "green"), what, Text(how, "dim"), Text(f"{seconds:.1f} s", "dim"))
        self._console.print(row)

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show a spinner on a terminal while the block runs."""
        if not self._live:
            yield
            return
        with self._console.status(f"[dim]{escape(what)}"):
            yield

    def act(self, number: int, title: str) -> None:
        """Print the heading of an act."""
        self.print()
        self.print(f"[bold cyan]{number}[/]  [bold]{escape(title)}[/]")

    def say(self, text: str) -> None:
        """Print a sentence, indented."""
        self._indented(Text(text))

    def code(self, text: str) -> None:
        """Print a statement that the demo executes."""
        self._indented(Text(text, "yellow"), 5)

    def command(self, text: str) -> None:
        """Print a command to copy, without wrapping it."""
        self._console.print(Text(f"  {text}", "yellow"), soft_wrap=True)

    def check(self, good: str, differences: Sequence[str]) -> None:
        """Print the outcome of a comparison: the text for success, or the differences."""
        if not differences:
            self._marked(self.glyphs.good, "bold green", good)
            return
        self._marked(self.glyphs.bad, "bold red", f"not so: {good}")
        for difference in differences[:TOLD]:
            self._indented(Text(difference, "red"), 5)
        if len(differences) > TOLD:
            self._indented(Text(f"and {len(differences) - TOLD:,} more", "red"), 5)
        self.failures += differences

    def fail(self, what: str) -> None:
        """Print an error, and count it as a failure."""
        self.check(what, [what])

    def table(self, rows: Sequence[Sequence[str]], columns: Sequence[str] = (), *, right: Sequence[int] = ()) -> None:
        """Print a small table.

        Args:
            rows: the cells.
            columns: the headings, if any.
            right: numbers of the right-aligned columns, from 0.
        """
        if not rows:
            return
        if not self._live:
            lines = [columns, *rows] if columns else rows
            widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
            for cells in lines:
                aligned = (
                    cell.rjust(width) if at in right else cell.ljust(width)
                    for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
                )
                self.print(escape("   " + "  ".join(aligned).rstrip()))
            return
        table = Table(box=None, show_header=bool(columns), header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
        for at in range(len(rows[0])):
            table.add_column(
                columns[at] if columns else "", justify="right" if at in right else "left", overflow="fold"
            )
        for row in rows:
            table.add_row(*map(self._cell, row))
        self._console.print(Padding(table, (0, 0, 0, 3)))

    @contextmanager
    def day(self) -> Iterator[Board]:
        """Open the live board: redrawn on a terminal, a line every second elsewhere."""
        if not self._live:
            yield Board(self, None)
            return
        with Live(console=self._console, auto_refresh=False) as live:
            yield Board(self, live)

    def _cell(self, cell: str) -> Text:
        styles = {self.glyphs.good: "bold green", self.glyphs.bad: "bold red"}
        return Text(cell, {**styles, "drifted": "red", "missing": "red", "orphan": "red"}.get(cell, ""))

    def _indented(self, text: Text, by: int = 3) -> None:
        if self._live:
            self._console.print(Padding(text, (0, 0, 0, by)))
        else:
            self._plain(" " * by + text.plain, indent=by + 2)

    def moment(self, text: str) -> None:
        """Print a moment of the day as a plain line."""
        self._plain(text)

    def _plain(self, text: str, *, indent: int | None = None) -> None:
        """Print a wrapped line without styles."""
        self._console.print(Text(wrapped(text, room(self._console.width), indent=indent)), soft_wrap=True)

    def _marked(self, sign: str, style: str, text: str) -> None:
        if not self._live:
            self._plain(f"{sign:<2} {text}", indent=3)
            return
        row = Table.grid(padding=(0, 1, 0, 0))
        row.add_column(width=2)
        row.add_column()
        row.add_row(Text(sign, style), Text(text))
        self._console.print(row)


class Board:
    """Shows frames of the day.

    Args:
        show: prints the plain lines.
        live: the region of the terminal that is redrawn; None elsewhere.
    """

    PLAIN_EVERY_S = 1.0

    def __init__(self, show: Show, live: Live | None) -> None:
        self._show = show
        self._live = live
        self._due = self.PLAIN_EVERY_S

    def draw(self, frame: Frame, *, last: bool = False) -> None:
        """Show a frame; without a terminal, print at most one a second."""
        if self._live is not None:
            self._live.update(board(frame, self._live.console.width), refresh=True)
        elif last or frame.elapsed_s >= self._due:
            self._due = frame.elapsed_s + self.PLAIN_EVERY_S
            self._show.moment(line(frame))
