"""What was measured: figures with their goals, as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report.

    Args:
        name: the benchmark it belongs to.
        what: what was measured.
        measured: the product's figure.
        unit: of `measured` and `baseline`.
        baseline: the same of the hand-written counterpart, where there is one.
        ratio: the product's speed as a part of the baseline's: the median of the rounds, each of which
            measured both, one after the other.
        at_least: goal for the ratio, or for `measured` where there is no ratio.
        at_most: goal for `measured`, where less is better.
        note: anything needed to understand the figure.
    """

    name: str
    what: str
    measured: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        if self.at_most is not None:
            return self.measured <= self.at_most
        if self.at_least is not None:
            return (self.measured if self.ratio is None else self.ratio) >= self.at_least
        return None

    @property
    def goal(self) -> str:
        if self.at_most is not None:
            return f"≤ {_number(self.at_most)} {self.unit}"
        if self.at_least is None:
            return ""
        return f"≥ {_number(self.at_least)}" + ("" if self.ratio is not None else f" {self.unit}")


def show(console: Console, figures: Sequence[Figure]) -> None:
    """Prints the figures as a table."""
    table = Table()
    table.add_column("benchmark")
    table.add_column("what")
    for title in ("measured", "baseline", "ratio", "goal", "met?"):
        table.add_column(title, justify="right", no_wrap=True)
    before = None
    for figure in figures:
        if before is not None and before != figure.name:
            table.add_section()
        met = {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[figure.met]
        table.add_row(
            figure.name if figure.name != before else "",
            figure.what + (f"\n[dim]{figure.note}[/]" if figure.note else ""),
            f"{_number(figure.measured)} {figure.unit}",
            "" if figure.baseline is None else f"{_number(figure.baseline)} {figure.unit}",
            "" if figure.ratio is None else f"{figure.ratio:.2f}",
            figure.goal,
            met,
        )
        before = figure.name
    console.print(table)


def as_json(environment: Mapping[str, str], events: int, figures: Sequence[Figure]) -> str:
    """The whole report as a JSON document."""
    lines = [{**asdict(figure), "met": figure.met} for figure in figures]
    return json.dumps({"environment": environment, "events": events, "figures": lines}, indent=2)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
