"""The live board of the day: received events, freshness, and the metrics."""

from __future__ import annotations

from dataclasses import dataclass

from rich.bar import Bar
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from refold.demo.figures import Figures

WIDE = 110
"""Most columns of the board."""
NARROW = 76
"""Columns of a terminal; on a narrower one, the halves of the board are below each other."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A moment of the day.

    Args:
        elapsed_s: real seconds since the day began.
        clock: seconds since midnight in the shop.
        received: deliveries received so far.
        rate: deliveries a second, lately.
        stored: accepted events.
        duplicates: deliveries that were refused, because the log has their events.
        rejected: conflicts and invalid events.
        late: stored events that happened long before.
        figures: the metrics.
        upkeep: kind of upkeep, by metric.
        behind: worst lag of the last second, by metric, in seconds.
    """

    elapsed_s: float
    clock: float
    received: int
    rate: float
    stored: int
    duplicates: int
    rejected: int
    late: int
    figures: Figures
    upkeep: dict[str, str]
    behind: dict[str, float]

    @property
    def time(self) -> str:
        """Return the time of the shop's clock, as HH:MM."""
        return f"{int(self.clock // 3600):02}:{int(self.clock // 60 % 60):02}"


def line(frame: Frame) -> str:
    """Return a frame as a plain line."""
    seen = frame.figures
    counts = ", ".join(f"{seen.counts.get(action, 0):,} {name}" for action, name in _ACTIONS)
    return (
        f"   {frame.time}  in {frame.received:,} ({frame.rate:,.0f}/s): {frame.stored:,} stored, "
        f"{frame.duplicates:,} duplicates, {frame.rejected:,} rejected | {seen.active:,} active users, {counts} | "
        f"at worst {max(frame.behind.values(), default=0) * 1000:,.0f} ms behind"
    )


def board(frame: Frame, width: int) -> RenderableType:
    """Return a frame as a panel.

    Args:
        frame: the moment.
        width: columns of the terminal.
    """
    clock = Table.grid(expand=True, padding=(0, 1))
    clock.add_column()
    clock.add_column(ratio=1)
    clock.add_row(
        Text.assemble(("Black Friday ", "bold"), (frame.time, "bold cyan")),
        ProgressBar(86_400, frame.clock, complete_style="cyan", finished_style="cyan"),
    )
    if width < NARROW:
        return _panel(clock, Text(), _log(frame), Text(), _metrics(frame), width=width)
    halves = Table.grid(expand=True, padding=(0, 4, 0, 0))
    halves.add_column()
    halves.add_column(ratio=1)
    halves.add_row(_log(frame), _metrics(frame))
    return _panel(clock, Text(), halves, width=width)


def _panel(*parts: RenderableType, width: int) -> Panel:
    return Panel(Group(*parts), border_style="dim", padding=(0, 1), width=min(width, WIDE))


_ACTIONS = (("view", "views"), ("cart", "carts"), ("purchase", "purchases"))
_REACHED = ("looked", "put into the cart", "paid")


def _log(frame: Frame) -> RenderableType:
    log = _list("The log")
    log.add_row("events in", f"{frame.received:,}")
    log.add_row("per second", f"{frame.rate:,.0f}")
    log.add_row("duplicates refused", Text(f"{frame.duplicates:,}", "yellow"))
    log.add_row("rejected", Text(f"{frame.rejected:,}", "yellow"))
    log.add_row("late, and counted", f"{frame.late:,}")
    behind = _list("Behind, at worst")
    for metric, seconds in frame.behind.items():
        name = Text.assemble(metric, (f" {frame.upkeep.get(metric, '')}", "dim"))
        behind.add_row(name, Text(f"{seconds * 1000:,.0f} ms", "green" if seconds < 0.25 else "yellow"))
    return Group(log, Text(), behind)


def _metrics(frame: Frame) -> RenderableType:
    seen = frame.figures
    day = _list("The metrics, live", bars=True)
    day.add_row("active users", f"{seen.active:,}", "")
    most = max([1, *seen.counts.values()])
    for action, name in _ACTIONS:
        count = seen.counts.get(action, 0)
        day.add_row(name, f"{count:,}", _bar(count, most, "cyan"))
    funnel = _list("The funnel", bars=True)
    for name, users in zip(_REACHED, seen.reached, strict=True):
        funnel.add_row(name, f"{users:,}", _bar(users, max(1, seen.reached[0]), "magenta"))
    return Group(day, Text(), funnel)


def _list(title: str, *, bars: bool = False) -> Table:
    table = Table(box=None, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), expand=bars)
    table.add_column(Text(title, "bold"), width=17 if bars else None, no_wrap=True)
    table.add_column("", justify="right", min_width=7)
    if bars:
        table.add_column("", ratio=1)
    return table


@dataclass(frozen=True, slots=True)
class _Bar:
    """A bar over the available width."""

    share: float
    style: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.ascii_only:
            yield Text("#" * round(self.share * options.max_width), self.style)
        else:
            yield Bar(1.0, 0.0, self.share, color=self.style)


def _bar(value: int, whole: int, style: str) -> _Bar:
    return _Bar(min(1.0, value / whole), style)
