"""The summary that `refold ingest` prints for its files."""

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
"""Most records set aside that the summary names."""


@dataclass(slots=True)
class FileReport:
    """The result of one file: the tally, and the first records that were set aside (line, answer, reason)."""

    source: str
    tally: Tally = field(default_factory=Tally)
    aside: list[tuple[int, str, str]] = field(default_factory=list)

    @property
    def nothing_got_in(self) -> bool:
        """Return whether all records of the file were set aside."""
        return 0 < self.tally.received == self.tally.set_aside

    def add_aside(self, record: Record, receipt: Receipt) -> None:
        """Add a record that was set aside."""
        if len(self.aside) < SHOWN:
            self.aside.append((record.line, receipt.answer.value, receipt.reason or ""))


def counts_of(tally: Tally) -> str:
    """Return the counts as the sum that always holds."""
    return (
        f"{tally.received:,} received = {tally.stored:,} stored + {tally.duplicates:,} duplicates"
        f" + {tally.set_aside:,} set aside"
    )


def _total(reports: Sequence[FileReport]) -> Tally:
    tallies = [asdict(report.tally) for report in reports]
    return Tally(**{name: sum(tally[name] for tally in tallies) for name in asdict(Tally())})


def print_summary(reports: Sequence[FileReport], seconds: float) -> None:
    """Print the counts on stdout, and a warning on stderr."""
    total = _total(reports)
    for report in reports:
        line(f"{report.source}: {counts_of(report.tally)}")
    if len(reports) > 1:
        line(f"total: {counts_of(total)}")
    if total.received:
        line(f"{seconds:.1f} s, {total.received / max(seconds, 1e-3):,.0f} records/s")
    if not total.set_aside:
        return
    warn = "bold yellow" if err.is_terminal else ""
    for report in reports:
        if report.nothing_got_in:
            err.print(Text(visible(f"no event of {report.source} was stored: all its records were set aside"), warn))
    err.print(f"set aside: {total.invalid:,} invalid, {total.conflicts:,} conflicts", style=warn, highlight=False)
    shown = [(report.source, *aside) for report in reports for aside in report.aside][:SHOWN]
    for name, at, answer, reason in shown:
        note(f"  {name}:{at}: {answer}: {reason}")
    rest = total.set_aside - len(shown)
    note((f"  and {rest:,} more; " if rest else "  ") + "`refold rejected` lists them with their text")


def print_json(reports: Sequence[FileReport], interrupted: bool, seconds: float) -> None:
    """Print the counts as JSON."""
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
