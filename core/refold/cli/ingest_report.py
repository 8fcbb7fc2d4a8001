"""The summary that `refold ingest` prints for its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rich.text import Text

from refold.cli.output import as_json, err, line, note
from refold.sources.files.run import Tally
from refold.store.log.append import Receipt
from refold.visible import visible

if TYPE_CHECKING:
    from refold.sources.files.records import Record

SHOWN = 5
"""Most rejected records that the summary names."""


@dataclass(slots=True)
class FileReport:
    """The result of one file: the tally, and the first records that were rejected (line, answer, reason)."""

    source: str
    tally: Tally = field(default_factory=Tally)
    rejected: list[tuple[int, str, str]] = field(default_factory=list)

    @property
    def nothing_got_in(self) -> bool:
        """Return whether all records of the file were rejected."""
        return 0 < self.tally.received == self.tally.rejected

    def add_rejected(self, record: Record, receipt: Receipt) -> None:
        """Add a record that was rejected."""
        if len(self.rejected) < SHOWN:
            self.rejected.append((record.line, receipt.answer.value, receipt.reason or ""))


def counts_of(tally: Tally) -> str:
    """Return the counts as the sum that always holds."""
    return (
        f"{tally.received:,} received = {tally.stored:,} stored + {tally.duplicates:,} duplicates"
        f" + {tally.rejected:,} rejected"
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
    if not total.rejected:
        return
    warn = "bold yellow" if err.is_terminal else ""
    for report in reports:
        if report.nothing_got_in:
            err.print(Text(visible(f"no event of {report.source} was stored: all its records were rejected"), warn))
    err.print(f"rejected: {total.invalid:,} invalid, {total.conflicts:,} conflicts", style=warn, highlight=False)
    shown = [(report.source, *rejected) for report in reports for rejected in report.rejected][:SHOWN]
    for name, at, answer, reason in shown:
        note(f"  {name}:{at}: {answer}: {reason}")
    rest = total.rejected - len(shown)
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
                    "first_rejected": [
                        {"line": at, "answer": answer, "reason": reason} for at, answer, reason in report.rejected
                    ],
                }
                for report in reports
            ],
        }
    )


def _figures(tally: Tally) -> dict[str, Any]:
    return {**asdict(tally), "rejected": tally.rejected}
