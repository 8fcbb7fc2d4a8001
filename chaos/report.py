"""What a campaign found: as a table, as JSON, as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

INVARIANTS = {
    "I1": "no acknowledged event is lost",
    "I2": "none is counted twice",
    "I3": "every metric is its query over the log, and the independent count",
    "I4": "no cursor passes an event that commits later",
    "I5": "the log is unaltered",
    "I6": "it converges by itself, in bounded time",
    "I7": "a bad event stops no other; stored + rejected = received",
    "I8": "while it lasts, status shows it",
    "I9": "receivers have what the metrics say",
    "I10": "each row that is asked for is explained by its events",
    "I11": "a file that the archive calls verified holds what was appended",
    "I12": "an event of a backfilled file counts exactly once",
    "I13": "nothing in the log breaks a contract that is enforced, and nothing that broke one is lost",
    "I14": "a reader sees one build of a canary, and after its end the live one",
    "I15": "what was purged is in the archive, and counts for ever",
    "I16": "nothing of an erased person stands anywhere, and everything else is as it was",
}


@dataclass(slots=True)
class FaultLine:
    """All faults of a kind.

    Args:
        fault: the kind.
        times: how often it happened.
        detected: seconds until `status` showed it, of those that it showed; for rows that were tampered with until
            an audit found them.
        recovered: seconds from its end until every metric held everything that was in the log then; for rows that
            were tampered with until they were healed.
    """

    fault: str
    times: int = 0
    detected: list[float] = field(default_factory=list)
    recovered: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ToilOfPeople:
    """What a campaign took of people, until the metrics were up to date after the load.

    Args:
        commands: that somebody ran: those that are faults, and the operator's.
        by_machine: incidents that ended without anybody.
        by_people: the others that ended.
        hours: hands-on hours of these, by times that were recorded or prices that are set beforehand, and of interrupts
            about nothing recorded.
        priced_hours: those by prices.
        autonomy: part of the ended incidents that ended without anybody.
    """

    commands: int
    by_machine: int
    by_people: int
    hours: float
    priced_hours: float
    autonomy: float | None


@dataclass(slots=True)
class Report:
    """The outcome of a campaign.

    Args:
        seed: decides the schedule.
        minutes: of load.
        server: its version.
        attempted: different events that producers tried to append.
        acknowledged: those they know to be in the log.
        lost: acknowledged, and not in the log or not in the metrics.
        double: in the log, or counted, more than once.
        tampered: rows that were changed by hand.
        found: rows that reconcile found to differ, and healed.
        left: rows that differ after that.
        explained_under_load: rows that were counted again from their events under load.
        explained_in_run: those of them whose builds were in the middle of a run.
        explained: rows that were counted again at the end.
        archived: files of the archive that were compared at the end, and their events.
        purged: events that have left the log.
        purged_under_load: segments that left it while there was load.
        let_go: rows that a sink was told not to deliver.
        restored: times that a lost segment came back from the archive.
        retained: metrics that keep their newest days only.
        erased: persons who were erased.
        backfilled: files that were backfilled, and how often one was staged.
        converged: seconds from the end of the load until every metric was up to date.
        duties: whether workers healed; without them somebody does, by commands.
        toil: what it took of people.
        faults: by kind.
        violations: by invariant, what was seen.
        events: what happened, in order.
        directory: where everything still is, after a failure.
    """

    seed: int
    minutes: float
    server: str = ""
    breaking: str | None = None
    attempted: int = 0
    acknowledged: int = 0
    lost: int = 0
    double: int = 0
    tampered: int = 0
    found: int = 0
    left: int = 0
    explained_under_load: int = 0
    explained_in_run: int = 0
    explained: int = 0
    archived: tuple[int, int] = (0, 0)
    purged: int = 0
    purged_under_load: int = 0
    let_go: int = 0
    restored: int = 0
    retained: int = 0
    erased: int = 0
    backfilled: tuple[int, int] = (0, 0)
    converged: float | None = None
    duties: bool = True
    toil: ToilOfPeople | None = None
    faults: list[FaultLine] = field(default_factory=list)
    violations: dict[str, list[str]] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    directory: str | None = None

    @property
    def held(self) -> bool:
        """Whether every invariant holds."""
        return not self.violations

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"held": self.held, **asdict(self)}


def _seconds(values: Sequence[float]) -> str:
    if not values:
        return "–"
    if len(values) == 1:
        return f"{values[0]:.1f} s"
    return f"{statistics.median(values):.1f} s, at most {max(values):.1f} s"


def _figures(report: Report) -> list[tuple[str, str]]:
    return [
        ("seed", str(report.seed)),
        ("minutes under load", f"{report.minutes:g}"),
        ("server", report.server),
        ("events attempted", f"{report.attempted:,}"),
        ("events acknowledged", f"{report.acknowledged:,}"),
        ("events lost", f"{report.lost:,}"),
        ("events double", f"{report.double:,}"),
        ("rows tampered with", f"{report.tampered:,}"),
        ("rows found and healed", f"{report.found:,}"),
        ("rows that differ after that", f"{report.left:,}"),
        (
            "rows explained under load, in runs, at the end",
            f"{report.explained_under_load:,}, {report.explained_in_run:,}, {report.explained:,}",
        ),
        ("files of the archive, and events in them", f"{report.archived[0]:,}, {report.archived[1]:,}"),
        (
            "events that have left the log, and segments that left it under load",
            f"{report.purged:,}, {report.purged_under_load:,}",
        ),
        ("rows that a sink has let go, and persons who were erased", f"{report.let_go:,}, {report.erased:,}"),
        ("segments restored, and metrics that keep their newest days", f"{report.restored:,}, {report.retained:,}"),
        ("files backfilled, and how often staged", f"{report.backfilled[0]:,}, {report.backfilled[1]:,}"),
        ("up to date after the load", "never" if report.converged is None else f"{report.converged:.1f} s"),
        *_toil(report),
    ]


def _toil(report: Report) -> list[tuple[str, str]]:
    if report.toil is None:
        return []
    toil = report.toil
    return [
        ("healed by", "duties" if report.duties else "commands of a person"),
        ("commands that were run", str(toil.commands)),
        ("incidents that ended without anybody, and by people", f"{toil.by_machine}, {toil.by_people}"),
        ("autonomy", "–" if toil.autonomy is None else f"{toil.autonomy:.0%}"),
        ("hands-on hours, and those of them by price", f"{toil.hours:.1f}, {toil.priced_hours:.1f}"),
    ]


def _fault_rows(report: Report) -> list[tuple[str, str, str, str]]:
    return [(f.fault, str(f.times), _seconds(f.detected), _seconds(f.recovered)) for f in report.faults]


def show(console: Console, report: Report) -> None:
    """Prints a report."""
    figures = Table(show_header=False)
    for name, value in _figures(report):
        figures.add_row(name, value)
    console.print(figures)
    faults = Table("fault")
    for title in ("times", "detected after", "recovered after"):
        faults.add_column(title, justify="right")
    for row in _fault_rows(report):
        faults.add_row(*row)
    console.print(faults)
    for name, meaning in INVARIANTS.items():
        told = report.violations.get(name, [])
        console.print(f"{'[red]violated[/]' if told else '[green]holds[/]   '} {name}: {meaning}")
        for one in told:
            console.print(f"           {one}", markup=False, highlight=False)
    if report.directory is not None:
        console.print(f"seed {report.seed}; the server, its log and the producers' files are in {report.directory}")


def as_markdown(report: Report) -> str:
    """The report as a page."""
    lines = ["| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in _figures(report)]
    lines += ["", "| fault | times | detected after (median, worst) | recovered after (median, worst) |"]
    lines += ["|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in _fault_rows(report)]
    lines += ["", "| invariant | |", "|---|---|"]
    for name, meaning in INVARIANTS.items():
        told = report.violations.get(name, [])
        lines.append(f"| {name}: {meaning} | {'**violated**: ' + '; '.join(told) if told else 'holds'} |")
    lines += ["", "What happened, in seconds after the start:", "", "```"]
    lines += report.events
    lines += ["```"]
    return "\n".join(lines) + "\n"
