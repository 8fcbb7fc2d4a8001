"""`python -m benchmarks.anomalies`: what the tests for anomalies notice, and how often they are wrong.

    python -m benchmarks.anomalies PATH …

A PATH is a git repository (a work tree or a bare one), whose series are its commits a day, by the folder that each
changes; or a CSV file with two columns, a time and a kind, in any order, with a header. Any history will do that was
not looked at when the tests were made.

The tests are those of refold, and they see of each day what a worker would see: the 90 days before it. The first half
of a history only teaches; figures are of the second half. Faults are put into real days: a day at 0, at a half, … of
one series, or of all. What is odd in the history itself counts as a false alarm, as nobody has labelled it.
"""

from __future__ import annotations

import csv
import json as jsonlib
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from refold.model.anomaly.judge import DailySeries, judge
from refold.model.anomaly.silence import silence

KEPT = 90
"""Days that a judgement sees, as in the database."""
KINDS = 4
"""Series of a history; the rarer kinds are one series together."""
EVERY = 5
"""A fault begins at every so many days of the second half."""
MUCH = 10.0
"""Events a day from which a series counts as one of high volume."""
APART = 3
"""Days within which alarms of a series are one."""

Change = Callable[[float, int], float | None]
FAULTS: dict[str, tuple[int, Callable[[float], float]]] = {
    "a day at 0": (1, lambda value: 0.0),
    "a day at a half": (1, lambda value: float(round(value * 0.5))),
    "a day at -30 %": (1, lambda value: float(round(value * 0.7))),
    "a day twice": (1, lambda value: value * 2),
    "a day three times": (1, lambda value: value * 3),
    "14 days at -30 %": (14, lambda value: float(round(value * 0.7))),
    "14 days at a half": (14, lambda value: float(round(value * 0.5))),
}
"""Faults: for how many days, and what becomes of a day's value."""


@dataclass(frozen=True, slots=True)
class History:
    """Counts of a history.

    Args:
        name: of the history.
        days: its series of counts a day; the total comes last and has no group.
        hours: counts an hour of the same series, by name.
    """

    name: str
    days: list[DailySeries]
    hours: dict[str, list[float]]


def read(path: Path, days: int, until: datetime | None = None) -> History:
    """Read a history.

    Args:
        path: a git repository, or a CSV file.
        days: days up to its end that count.
        until: what came later does not count.
    """
    events = list(_of_csv(path) if path.suffix == ".csv" else _of_git(path))
    if until is not None:
        events = [(at, kind) for at, kind in events if at < until]
    last = max(at for at, _ in events).date()
    # The last day may not be over.
    first = max(last - timedelta(days=days), min(at for at, _ in events).date() + timedelta(days=1))
    length = (last - first).days
    half = first + timedelta(days=length // 2)
    often = Counter(kind for at, kind in events if first <= at.date() < half)
    own = {kind for kind, _ in often.most_common(KINDS - 1)}
    hours: dict[str, list[float]] = defaultdict(lambda: [0.0] * (length * 24))
    for at, kind in events:
        hour = _hour(at, first)
        if 0 <= hour < length * 24:
            hours[kind if kind in own else "(other)"][hour] += 1
            hours["(all)"][hour] += 1
    name = path.name.removesuffix(".git") if path.name != "repo" else path.parent.name
    series = [
        DailySeries(kind, None if kind == "(all)" else name, _daily(hours[kind]))
        for kind in sorted(hours, key=lambda kind: kind == "(all)")
    ]
    return History(name, series, dict(hours))


def _daily(hours: Sequence[float]) -> tuple[float, ...]:
    return tuple(sum(hours[at : at + 24]) for at in range(0, len(hours), 24))


def _hour(at: datetime, first: date) -> int:
    return int((at - datetime(first.year, first.month, first.day, tzinfo=UTC)).total_seconds() // 3600)


def _of_csv(path: Path) -> list[tuple[datetime, str]]:
    with path.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    times = [(datetime.fromisoformat(at), kind) for at, kind, *_ in rows]
    return [(at if at.tzinfo else at.replace(tzinfo=UTC), kind) for at, kind in times]


def _of_git(path: Path) -> list[tuple[datetime, str]]:
    """Return the commits of a repository, by the time of the commit, with the folder of the first file in each."""
    log = subprocess.run(
        ["git", "-C", str(path), "log", "--no-merges", "--no-renames", "--name-only", "--format=%x00%ct"],
        check=True,
        capture_output=True,
    ).stdout.decode("utf-8", "replace")
    found = []
    for commit in log.split("\0")[1:]:
        at, _, files = commit.partition("\n")
        file = files.strip().partition("\n")[0]
        found.append((datetime.fromtimestamp(int(at), UTC), file.partition("/")[0] if "/" in file else "(top)"))
    return found


@dataclass
class Tally:
    """What was noticed of one kind of fault."""

    faults: int = 0
    noticed: int = 0
    days: list[int] | None = None

    @property
    def recall(self) -> float:
        return self.noticed / max(self.faults, 1)


def _alarms(series: Sequence[DailySeries], at: int, budget: float) -> set[str]:
    """Return the series that are unusual on a day."""
    seen = [replace(one, values=one.values[max(0, at + 1 - KEPT) : at + 1]) for one in series]
    return {verdict.series for verdict in judge(seen, budget) if verdict.unusual}


def _steady(series: DailySeries, at: int) -> float:
    before = [value or 0.0 for value in series.values[at - 28 : at]]
    return sum(before) / len(before)


def false_alarms(history: History, begin: int, end: int, budget: float) -> tuple[int, int, dict[int, set[str]]]:
    """Return the alarms of some days as they were, the days of series that were judged, and the alarms by day."""
    alarms, judged = 0, 0
    by_day: dict[int, set[str]] = {}
    last: dict[str, int] = {}
    for at in range(begin, end):
        by_day[at] = _alarms(history.days, at, budget)
        judged += sum(_steady(one, at) >= 5 for one in history.days)
        for name in by_day[at]:
            alarms += at - last.get(name, -99) > APART
            last[name] = at
    return alarms, judged, by_day


def recall(
    history: History, begin: int, end: int, budget: float, usual: dict[int, set[str]], *, everything: bool
) -> dict[tuple[str, bool], Tally]:
    """Return what was noticed of each fault, over all series and over those of high volume.

    Args:
        history: the history.
        begin: first day at which a fault may begin.
        end: the day after the last of a fault.
        budget: false alarms a week.
        usual: the alarms without faults: they are not taken for the notice of a fault.
        everything: whether a fault hits all series at once, and not one.
    """
    tallies: dict[tuple[str, bool], Tally] = defaultdict(lambda: Tally(days=[]))
    hit = [one for one in history.days if (one.group is None) == everything]
    for name, (length, change) in FAULTS.items():
        for start in range(begin, end - length, EVERY):
            for target in hit:
                volume = _steady(target, start)
                if volume < 5 or target.name in usual.get(start, ()):
                    continue
                faulty = [
                    _changed(one, start, length, change) if everything or one.name == target.name else one
                    for one in history.days
                ]
                noticed = next(
                    (
                        at - start + 1
                        for at in range(start, start + length)
                        if (found := _alarms(faulty, at, budget)) and (everything or target.name in found)
                    ),
                    None,
                )
                for much in (False, True):
                    if much and volume < MUCH:
                        continue
                    tally = tallies[name, much]
                    tally.faults += 1
                    if noticed is not None:
                        tally.noticed += 1
                        assert tally.days is not None
                        tally.days.append(noticed)
    return tallies


def _changed(one: DailySeries, start: int, length: int, change: Callable[[float], float]) -> DailySeries:
    values = list(one.values)
    for at in range(start, start + length):
        values[at] = change(values[at] or 0.0)
    return replace(one, values=tuple(values))


def silences(history: History, begin: int, end: int) -> tuple[int, int, list[tuple[float, int]]]:
    """Return false silences, series that were judged, and for outages: events a day, and hours until the notice."""
    false, judged, noticed = 0, 0, []
    for one in history.days:
        hours = history.hours[one.name]
        quiet = False
        known = 0
        for at in range(begin * 24, end * 24):
            found = silence(hours[max(0, at - KEPT * 24) : at]) if not hours[at - 1] else None
            known += 1
            alarm = found is not None and found.unusual
            false += alarm and not quiet
            quiet = alarm
        judged += known
        for start in range(begin * 24, end * 24 - 24 * 14, 24 * 23 + 7):
            before = hours[max(0, start - KEPT * 24) : start]
            for wait in range(1, 24 * 14):
                found = silence([*before, *[0.0] * wait][-KEPT * 24 :])
                if found is not None and found.unusual:
                    noticed.append((_steady(one, start // 24), wait))
                    break
    return false, judged, noticed


def main(
    paths: Annotated[list[Path], typer.Argument(help="Git repositories, or CSV files with a time and a kind.")],
    budget: Annotated[float, typer.Option(help="False alarms a week that are allowed of one series.")] = 0.05,
    days: Annotated[int, typer.Option(min=200, help="Days up to the end of each history that count.")] = 720,
    until: Annotated[datetime | None, typer.Option(help="Leave out what came later.")] = None,
    half: Annotated[str, typer.Option(help="The half that is judged: first (to choose by), or second.")] = "second",
    json: Annotated[bool, typer.Option("--json", help="Print a JSON document.")] = False,
) -> None:
    """Measure precision and recall of the tests for anomalies on histories."""
    alarms = judged = quiet = hours = 0
    one: dict[tuple[str, bool], Tally] = defaultdict(lambda: Tally(days=[]))
    every: dict[tuple[str, bool], Tally] = defaultdict(lambda: Tally(days=[]))
    outages: list[tuple[float, int]] = []
    lines = []
    for path in paths:
        history = read(path, days, None if until is None else until.replace(tzinfo=UTC))
        length = len(history.days[0].values)
        begin, end = (length // 2, length) if half == "second" else (min(KEPT, length // 3), length // 2)
        allowed = budget * len(history.days)
        of_alarms, of_judged, usual = false_alarms(history, begin, end, allowed)
        alarms, judged = alarms + of_alarms, judged + of_judged
        for everything, tallies in ((False, one), (True, every)):
            for key, tally in recall(history, begin, end, allowed, usual, everything=everything).items():
                into = tallies[key]
                into.faults += tally.faults
                into.noticed += tally.noticed
                assert into.days is not None and tally.days is not None
                into.days += tally.days
        of_quiet, of_hours, found = silences(history, begin, end)
        quiet, hours, outages = quiet + of_quiet, hours + of_hours, outages + found
        a_day = sum(value or 0 for value in history.days[-1].values) / length
        lines.append(
            {
                "history": history.name,
                "days": length,
                "events_a_day": round(a_day, 1),
                "series": len(history.days),
                "false_alarms": of_alarms,
                "series_weeks": round(of_judged / 7, 1),
                "false_silences": of_quiet,
            }
        )
    rate = alarms / max(judged / 7, 1)
    told = {
        "half": half,
        "budget": budget,
        "histories": lines,
        "false_alarms_a_series_week": round(rate, 3),
        "one_series": [_line(name, one, rate) for name in FAULTS],
        "all_series": [_line(name, every, rate) for name in FAULTS],
        "false_silences_a_series_week": round(quiet / max(hours / 168, 1), 4),
        "hours_to_silence": [_silence(outages, low, high) for low, high in ((0, 5), (5, 20), (20, 100), (100, 10**6))],
    }
    if json:
        print(jsonlib.dumps(told, indent=2))
        return
    for line in lines:
        print("  ".join(f"{name} {value}" for name, value in line.items()))
    print(f"\nfalse alarms a series-week: {rate:.3f} (budget {budget}), over {judged / 7:.0f} series-weeks")
    for title, part in (("one series", told["one_series"]), ("all series at once", told["all_series"])):
        print(f"\n{title}: fault, recall in % (of series with 10 or more a day), precision in %, noticed on day")
        assert isinstance(part, list)
        for line in part:
            much = "–" if line["recall_much"] is None else f"{line['recall_much']:.0f}"
            print(
                f"  {line['fault']:20} {line['recall']:4.0f} ({much}) {line['precision']:5.0f}   "
                f"{line['day'] or '–'}   n={line['faults']}"
            )
    print(f"\nfalse silences a series-week: {quiet / max(hours / 168, 1):.4f}")
    print(told["hours_to_silence"])


def _line(name: str, tallies: dict[tuple[str, bool], Tally], rate: float) -> dict[str, object]:
    """Return the figures of a fault. Precision: if every series had such a fault once in four weeks."""
    all_, much = tallies[name, False], tallies[name, True]
    hits = all_.recall
    days = sorted(all_.days or [])
    return {
        "fault": name,
        "recall": round(100 * hits, 1),
        "recall_much": round(100 * much.recall, 1) if much.faults else None,
        "precision": round(100 * hits / max(hits + 4 * rate, 1e-9), 1),
        "day": days[len(days) // 2] if days and FAULTS[name][0] > 1 else None,
        "faults": all_.faults,
    }


def _silence(outages: list[tuple[float, int]], low: float, high: float) -> dict[str, object]:
    found = sorted(hours for volume, hours in outages if low <= volume < high)
    return {
        "events_a_day": [low, high],
        "outages": len(found),
        "median_hours": found[len(found) // 2] if found else None,
    }


if __name__ == "__main__":
    typer.run(main)
