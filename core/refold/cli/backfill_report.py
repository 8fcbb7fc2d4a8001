"""What `refold backfill` prints: what was staged, what a check found, and how far a run has got."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from refold.cli.output import as_json, line, note, out, table, text_of
from refold.model.backfill.pace import remaining_s
from refold.prose import counted, duration
from refold.store.file_backfills import FileBackfill

if TYPE_CHECKING:
    from refold.inspect.backfill.answers import Answers
    from refold.inspect.backfill.check import Findings
    from refold.inspect.backfill.effects import Effect
    from refold.sources.files.staging import StagedFile

SHOWN = 3
"""Rows of each metric, and refused records, that the text of a check shows; --json has all."""

LONGEST = 40
"""Most characters of a value in such a row."""


def counts_of(file: StagedFile) -> str:
    """Return the counts of a file that is staged."""
    return f"{file.records:,} records, {file.invalid:,} invalid"


def print_staged(staged: FileBackfill, files: Sequence[StagedFile]) -> None:
    """Print what was staged."""
    for one in files:
        line(f"{one.name}: {counts_of(one)}")
    if staged.first_ts is not None and staged.last_ts is not None:
        line(f"events from {staged.first_ts:%Y-%m-%d %H:%M} to {staged.last_ts:%Y-%m-%d %H:%M} UTC")
    shown = [(one.name, *invalid) for one in files for invalid in one.first_invalid][:SHOWN]
    for file, at, problem in shown:
        note(f"  {file}:{at}: invalid: {problem}")
    if staged.invalid > len(shown):
        note(f"  and {staged.invalid - len(shown):,} more; `refold backfill check {staged.name} --json` names some")
    note(f"`refold backfill check {staged.name}` shows what it would change")


def print_findings(name: str, found: Findings) -> None:
    """Print what a check found."""
    line(f"{name}: {_sum_of(found.answers)}")
    if found.answers.breaches:
        style = "yellow" if found.answers.too_many_breaches else ""
        line(f"contracts refuse {counted(found.answers.breaches, 'record')}, which count as invalid", style)
    for refused in found.answers.refused[:SHOWN]:
        note(f"  {refused.file}:{refused.line}: {refused.event_id or 'invalid'}: {refused.reason}")
    rest = found.answers.conflicts + found.answers.invalid - SHOWN
    if rest > 0:
        note(f"  and {rest:,} more conflicts and invalid records; --json names {len(found.answers.refused)}")
    line()
    told = [one for one in found.effects if one.told]
    if told:
        table(
            ("METRIC", "ADDED", "CHANGED", "REMOVED", "SUMS", "NOTE"),
            [(one.metric, one.added, one.changed, one.removed, _sums(one), one.because) for one in told],
            right=("ADDED", "CHANGED", "REMOVED"),
        )
    for one in told:
        for sample in one.samples[:SHOWN]:
            line(f"  {one.metric}: {_sample(sample)}")
    for one in found.effects:
        if not one.told:
            line(f"{one.metric}: no effect can be told: {one.because}", "yellow")
    if not found.effects:
        line("there are no live metrics")


def _sum_of(answers: Answers) -> str:
    total = answers.new + answers.duplicates + answers.repeated + answers.conflicts + answers.invalid
    return (
        f"{counted(total, 'record')} = {answers.new:,} new + {answers.duplicates:,} duplicates"
        f" + {answers.repeated:,} repeated in the files + {answers.conflicts:,} conflicts + {answers.invalid:,} invalid"
    )


def _sums(one: Effect) -> str:
    return ", ".join(f"{name} {value:+,}" for name, value in one.sums.items())


def _sample(sample: Any) -> str:
    before, after = _rows(sample["before"], sample["after"]), _rows(sample["after"], sample["before"])
    return f"{before} → {after}" if before and after else f"+ {after}" if after else f"− {before}"


def _rows(rows: Sequence[Any], others: Sequence[Any]) -> str:
    return "; ".join(_row(row, others[at] if at < len(others) else {}) for at, row in enumerate(rows))


def _row(row: Any, other: Any) -> str:
    return ", ".join(
        # What is piped is whole: programs and grep look for it.
        f"{name} {_short(text_of(value), text_of(other.get(name))) if out.is_terminal else text_of(value)}"
        for name, value in row.items()
        if value is not None
    )


def _short(text: str, other: str) -> str:
    """Return a value in at most `LONGEST` characters: those around the first that differs on the other side."""
    if len(text) <= LONGEST:
        return text
    shorter = min(len(text), len(other))
    same = 0 if text == other else next((at for at in range(shorter) if text[at] != other[at]), shorter)
    begin = max(0, min(same - LONGEST // 2, len(text) - LONGEST))
    end = begin + LONGEST
    return f"{'…' if begin else ''}{text[begin:end]}{'…' if end < len(text) else ''}"


def print_done(done: FileBackfill, json: bool) -> None:
    """Print how a run has ended."""
    if json:
        as_json(as_dict(done))
    elif done.state == "done":
        line(
            f"{done.name}: done: {done.total:,} records = {done.accepted:,} accepted + {done.duplicates:,} duplicates"
            f" + {done.conflicts:,} conflicts + {done.invalid_so_far:,} invalid"
        )
        if done.conflicts or done.invalid_so_far:
            note("`refold rejected` lists conflicts and invalid records with their text")
    else:
        line(f"{done.name}: {done.state} behind {done.mark:,} of {counted(done.total, 'record')}", "yellow")
        if done.because:
            note(f"because {done.because}")
        if done.state == "paused":
            note(f"`refold backfill resume {done.name}` goes on")


def time_left(one: FileBackfill) -> str | None:
    """Return in how long a backfill is done; None if that is not known."""
    left = remaining_s(one.left, one.per_second)
    return None if left is None else duration(left)


def as_dict(one: FileBackfill) -> dict[str, Any]:
    """Return a backfill as a dict for JSON."""
    told = asdict(one)
    told.pop("findings")
    eta = remaining_s(one.left, one.per_second) if one.state == "running" else None
    return {**told, "invalid": one.invalid_so_far, "left": one.left, "eta_seconds": eta}
