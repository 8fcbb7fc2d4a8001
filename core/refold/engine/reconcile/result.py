"""The findings of audits, as values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from refold.model.stream.slices import by_position
from refold.model.upkeep.checksums import READ
from refold.store.builds.checksums import Disagreement
from refold.store.builds.compiled import CompiledBuild

Kind = Literal["missing", "orphan", "drifted"]


@dataclass(frozen=True, slots=True)
class Difference:
    """A key at which a table differs from its query over the log.

    Args:
        projection: name of the projection.
        relation: the table, without its schema: the metric's, or a set of members beside it.
        kind: the row is `missing`, there is an `orphan` that no event explains, or it has `drifted`.
        key: the columns that identify the row.
        before: the row in the table (a list if the key has several rows); None for missing.
        after: the row according to the log; None for orphan.
        healed: whether it was healed.
    """

    projection: str
    relation: str
    kind: Kind
    key: Mapping[str, Any]
    before: Any
    after: Any
    healed: bool


@dataclass(frozen=True, slots=True)
class WrongSlice:
    """A slice whose rows differ from the kept checksum.

    Args:
        projection: name of the projection.
        relation: the table, without its schema.
        slice: the slice, in words.
        recorded: number of rows that refold has written, or has read if `read` is set.
        actual: number of rows in the table; if the numbers are equal, the contents differ.
        read: whether it is a slice of the stream that the projection reads.
    """

    projection: str
    relation: str
    slice: str
    recorded: int
    actual: int
    read: bool = False


@dataclass(frozen=True, slots=True)
class Hidden:
    """A metric whose view was dropped or replaced, so that analysts do not see its rows.

    Args:
        projection: the metric.
        healed: whether the view was recreated.
        because: the reason if it could not be.
        remedy: the action that removes this reason.
    """

    projection: str
    healed: bool
    because: str | None = None
    remedy: str | None = None


@dataclass(slots=True)
class ReconcileReport:
    """The outcome of a reconcile.

    Args:
        findings: the first findings of each table, with their rows.
        counts: number of findings, by (projection, relation, kind).
        slices: slices whose rows differ from their checksums, as a quick audit finds them.
        checksums: slices with correct rows and a wrong checksum.
        audited: the projections that were compared.
        skipped: the projections that were not, each with the reason.
        failed: the skipped projections whose audit raised an unexpected error.
        unhealed: the skipped projections that differ, and were not healed because the log is damaged.
        hidden: metrics whose views were dropped or replaced.
        beyond: slices that differ from their checksums, and of which the log cannot tell the rows any more.
    """

    findings: list[Difference] = field(default_factory=list)
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    slices: list[WrongSlice] = field(default_factory=list)
    checksums: list[WrongSlice] = field(default_factory=list)
    audited: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    unhealed: list[str] = field(default_factory=list)
    hidden: list[Hidden] = field(default_factory=list)
    beyond: list[WrongSlice] = field(default_factory=list)

    @property
    def drift(self) -> int:
        """Return the number of keys that differed."""
        return self.counts.total()

    @property
    def clean(self) -> bool:
        """Return whether the run found no difference of any kind."""
        return not (self.drift or self.slices or self.checksums or self.unhealed or self.hidden or self.beyond)

    def add(self, other: ReconcileReport) -> None:
        """Add the findings of a part of the run."""
        self.findings += other.findings
        self.counts += other.counts
        self.slices += other.slices
        self.checksums += other.checksums
        self.beyond += other.beyond

    def add_slices(self, compiled: CompiledBuild, projection: str, found: Iterable[Disagreement]) -> None:
        """Add the findings of a quick audit."""
        self.slices += _in_words(compiled, projection, found)

    def add_checksums(self, compiled: CompiledBuild, projection: str, found: Iterable[Disagreement]) -> None:
        """Add wrong checksums."""
        self.checksums += _in_words(compiled, projection, found)

    def add_beyond(self, compiled: CompiledBuild, projection: str, found: Iterable[Disagreement]) -> None:
        """Add slices that cannot be healed from the log."""
        self.beyond += _in_words(compiled, projection, found)


@dataclass(frozen=True, slots=True)
class AuditResult:
    """The outcome of an audit.

    Args:
        suspects: the slices in which a build differs from its query or from its checksums.
        report: the differences, if they were asked for; healing has its own report.
    """

    suspects: set[int]
    report: ReconcileReport


def bare_name(table: str) -> str:
    """Return a table's name without its schema."""
    return table.split(".", 1)[1].strip('"')


def _in_words(compiled: CompiledBuild, projection: str, found: Iterable[Disagreement]) -> list[WrongSlice]:
    return [_named(compiled, projection, one) for one in found]


def _named(compiled: CompiledBuild, projection: str, one: Disagreement) -> WrongSlice:
    if one.relation == READ:
        which = by_position().name(one.slice) if compiled.statements.reads_by_slice else "all of it"
        return WrongSlice(projection, bare_name(compiled.stream.table), which, one.recorded, one.actual, read=True)
    relation = compiled.statements.kept[one.relation]
    return WrongSlice(projection, bare_name(relation.table), relation.slicing.name(one.slice), one.recorded, one.actual)
