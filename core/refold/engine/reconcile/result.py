"""What an audit found, as values."""

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
    """One key at which a table differs from its query over the log.

    Args:
        projection: whose table.
        relation: the table, without its schema: the metric's, or a set of members beside it.
        kind: the row is `missing`, there is an `orphan` that no event explains, or it has `drifted`.
        key: the columns that name the row.
        before: the row as it stood (a list where the key has several rows); None for missing.
        after: the row as the log has it; None for orphan.
        healed: whether it has been set right.
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
    """A slice in which the rows are not what the kept checksum says.

    Args:
        projection: whose.
        relation: the table, without its schema.
        slice: which part of it, in words.
        recorded: rows that refold has written there.
        actual: rows that are there; of equal numbers the contents differ.
        read: it is a slice of the stream that the projection reads: what it has read of it, and what is there.
    """

    projection: str
    relation: str
    slice: str
    recorded: int
    actual: int
    read: bool = False


@dataclass(frozen=True, slots=True)
class Hidden:
    """A metric whose view somebody has dropped or replaced: analysts are shown something else.

    Args:
        projection: the metric.
        healed: whether the view was made again.
        because: why it could not be.
        remedy: what to do about that.
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
        counts: all of them, by (projection, relation, kind).
        slices: where rows and kept checksums disagree (quick), without a look at the log.
        checksums: slices whose rows were right and whose checksum was wrong.
        audited: the projections that were compared.
        skipped: those that could not be, and why.
        failed: those of them whose audit failed, which nobody expects.
        unhealed: those of them that differ and were not healed, because the log is damaged.
        hidden: metrics that their views do not show.
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

    @property
    def drift(self) -> int:
        """How many keys differed."""
        return self.counts.total()

    @property
    def clean(self) -> bool:
        """Whether nothing at all differed."""
        return not (self.drift or self.slices or self.checksums or self.unhealed or self.hidden)

    def add(self, other: ReconcileReport) -> None:
        """Add what a part of the run found and did."""
        self.findings += other.findings
        self.counts += other.counts
        self.slices += other.slices
        self.checksums += other.checksums

    def add_slices(self, compiled: CompiledBuild, projection: str, found: Iterable[Disagreement]) -> None:
        """Adds what a quick audit found."""
        self.slices += _in_words(compiled, projection, found)

    def add_checksums(self, compiled: CompiledBuild, projection: str, found: Iterable[Disagreement]) -> None:
        """Adds checksums that were wrong."""
        self.checksums += _in_words(compiled, projection, found)


@dataclass(frozen=True, slots=True)
class AuditResult:
    """What an audit saw.

    Args:
        suspects: the slices in which a build differs from its query, or its rows from their checksums.
        report: the differences, where they were asked for; healing reports its own.
    """

    suspects: set[int]
    report: ReconcileReport


def bare_name(table: str) -> str:
    """A table's name without its schema."""
    return table.split(".", 1)[1].strip('"')


def _in_words(compiled: CompiledBuild, projection: str, found: Iterable[Disagreement]) -> list[WrongSlice]:
    return [_named(compiled, projection, one) for one in found]


def _named(compiled: CompiledBuild, projection: str, one: Disagreement) -> WrongSlice:
    if one.relation == READ:
        which = by_position().name(one.slice) if compiled.statements.reads_by_slice else "all of it"
        return WrongSlice(projection, bare_name(compiled.stream.table), which, one.recorded, one.actual, read=True)
    relation = compiled.statements.relations[one.relation]
    return WrongSlice(projection, bare_name(relation.table), relation.slicing.name(one.slice), one.recorded, one.actual)
