"""What `refold ingest` tells of the files it has read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.text import Text

from refold.cli.output import as_json, err, line, note
from refold.sources.files.records import Record
from refold.sources.files.run import Tally
from refold.store.log.append import Receipt
from refold.visible import visible

SHOWN = 5
"""Records that were set aside, named in the summary."""


@dataclass(slots=True)
class FileReport:
    """What became of one file: the tally, and the first records that were set aside (line, answer, reason)."""

    source: str
    tally: Tally = field(default_factory=Tally)
    aside: list[tuple[int, str, str]] = field(default_factory=list)

    @property
    def nothing_got_in(self) -> bool:
        """Whether all that was read was set aside."""
        return 0 < self.tally.received == self.tally.set_aside

    def add_aside(self, record: Record, receipt: Receipt) -> None:
        """Takes one that was set aside."""
        if len(self.aside) < SHOWN:
            self.aside.append((record.line, receipt.answer.value, receipt.reason or ""))


def counts_of(tally: Tally) -> str:
    """The sum that always comes out."""
    return (
        f"{tally.received:,} received = {tally.stored:,} stored + {tally.duplicates:,} duplicates"
        f" + {tally.set_aside:,} set aside"
    )


def _total(reports: Sequence[FileReport]) -> Tally:
    tallies = [asdict(report.tally) for report in reports]
    return Tally(**{name: sum(tally[name] for tally in tallies) for name in asdict(Tally())})


def print_summary(reports: Sequence[FileReport], seconds: float) -> None:
    """The figures on stdout, a warning on stderr."""
    total = _total(reports)
    for report in reports:
        line(f"{report.source}: {counts_of(report.tally)}")
    if len(reports) > 1:
        line(f"together: {counts_of(total)}")
    if total.received:
        line(f"{seconds:.1f} s, {total.received / max(seconds, 1e-3):,.0f} records/s")
    if not total.set_aside:
        return
    warn = "bold yellow" if err.is_terminal else ""
    for report in reports:
        if report.nothing_got_in:
            err.print(Text(visible(f"nothing of {report.source} got in: all of it was set aside"), warn))
    err.print(f"set aside: {total.invalid:,} invalid, {total.conflicts:,} conflicts", style=warn, highlight=False)
    shown = [(report.source, *aside) for report in reports for aside in report.aside][:SHOWN]
    for name, at, answer, reason in shown:
        note(f"  {name}:{at}: {answer}: {reason}")
    rest = total.set_aside - len(shown)
    note((f"  and {rest:,} more; " if rest else "  ") + "`refold rejected` lists them with their text")


def print_json(reports: Sequence[FileReport], interrupted: bool, seconds: float) -> None:
    """The same for machines."""
    as_json(
        {
            **_figures(_total(reports)),
            "interrupted": interrupted,
            "seconds": round(seconds, 3),
            "files": [
                {
                    "source": report.source,
                    **_figures(report.tally),
                    "first_set_aside": [
                        {"line": at, "answer": answer, "reason": reason} for at, answer, reason in report.aside
                    ],
                }
                for report in reports
            ],
        }
    )


def _figures(tally: Tally) -> dict[str, Any]:
    return {**asdict(tally), "set_aside": tally.set_aside}
