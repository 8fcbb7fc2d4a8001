"""Pictures as figures: where lines, bars and cells stand. Templates make SVG of them: no page needs a script. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from refold.inspect.incidents import Incidents, Told
from refold.model.quantiles import bucket, edge
from refold.store.incidents import KINDS


def line(values: Sequence[float | None], width: float, height: float, *, top: float | None = None) -> str:
    """Return the path of a line through values; it breaks where there is none."""
    most = max([value for value in values if value is not None], default=0) if top is None else top
    step = width / max(len(values) - 1, 1)
    path, pen = [], "M"
    for at, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        path.append(f"{pen}{at * step:.1f} {height - 2 - (value / most if most else 0) * (height - 5):.1f}")
        pen = "L"
    return "".join(path)


@dataclass(frozen=True, slots=True)
class Bar:
    """An incident in a lane; lengths in the picture's units."""

    x: float
    width: float
    tick: float | None
    told: Told


@dataclass(frozen=True, slots=True)
class Lane:
    """The incidents of one kind."""

    kind: str
    y: float
    bars: list[Bar]


@dataclass(frozen=True, slots=True)
class Timeline:
    """Lanes of incidents over a time span.

    Args:
        width: of the picture.
        height: of the picture.
        left: where the time begins.
        lanes: one a kind.
        marks: (x, text) of the time axis.
    """

    width: float
    height: float
    left: float
    lanes: list[Lane]
    marks: list[tuple[float, str]]


LANE = 26.0


def timeline(of: Incidents, width: float = 1100, left: float = 150) -> Timeline:
    """Return where each incident stands: from its start to its end, with a tick where it was detected."""
    total = (of.at - of.since).total_seconds()

    def place(at: datetime) -> float:
        return left + (width - left) * min(max((at - of.since).total_seconds() / total, 0), 1)

    kinds = [kind for kind in KINDS if any(told.incident.kind == kind for told in of.told)]
    lanes = []
    for number, kind in enumerate(kinds):
        bars = []
        for told in of.told:
            one = told.incident
            if one.kind != kind:
                continue
            x = place(one.started_at)
            until = place(one.resolved_at or of.at)
            found = place(one.detected_at)
            bars.append(Bar(x, max(until - x, 4), found if told.start_known and found - x > 4 else None, told))
        lanes.append(Lane(kind.replace("_", " "), number * LANE + 24, bars))
    marks = [(place(of.since + share * (of.at - of.since)), _mark(of, share)) for share in (0, 0.25, 0.5, 0.75)]
    return Timeline(width, len(lanes) * LANE + 30, left, lanes, marks)


def _mark(of: Incidents, share: float) -> str:
    at = of.since + share * (of.at - of.since)
    return f"{at:%H:%M}" if of.at - of.since <= timedelta(days=2) else f"{at.day} {at:%b}"


@dataclass(frozen=True, slots=True)
class Heat:
    """A heat map of latencies: minutes from left to right, durations from below to above.

    Args:
        width: of the picture.
        height: of the picture.
        left: where the minutes begin.
        bottom: where the durations begin.
        cell: width and height of a cell.
        cells: (x, y, level 1 to 6, minutes ago, seconds, events).
        rows: (y, seconds) of the durations that are named.
    """

    width: float
    height: float
    left: float
    bottom: float
    cell: tuple[float, float]
    cells: list[tuple[float, float, int, int, float, int]]
    rows: list[tuple[float, float]]


LEVELS = 6
WIDEST = 16.0
CELL_H = 13.0


def heat(found: Iterable[tuple[int, int, int]], minutes: int, *, left: float = 58) -> Heat | None:
    """Return a heat map of (minutes ago, bucket, events); None without events. A row spans a factor of two."""
    octave = bucket(2.0)
    sums: dict[tuple[int, int], int] = {}
    for ago, number, events in found:
        at = (ago, math.ceil(number / octave))
        sums[at] = sums.get(at, 0) + events
    if not sums:
        return None
    low, high = min(row for _, row in sums), max(row for _, row in sums)
    most = math.log1p(max(sums.values()))
    height = (high - low + 1) * CELL_H
    cells = []
    for (ago, row), events in sorted(sums.items()):
        level = max(1, round(math.log1p(events) / most * LEVELS))
        x = left + (minutes - ago) * WIDEST
        cells.append((x, (high - row) * CELL_H, level, ago, edge(row * octave), events))
    rows = [((high - row) * CELL_H, edge(row * octave)) for row in range(low, high + 1) if (row - low) % 2 == 0]
    return Heat(left + (minutes + 1) * WIDEST, height + 22, left, height, (WIDEST - 1.5, CELL_H - 1.5), cells, rows)
