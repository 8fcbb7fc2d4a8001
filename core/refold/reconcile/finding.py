"""What an audit found, as values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["missing", "orphan", "drifted"]


@dataclass(frozen=True, slots=True)
class Finding:
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


@dataclass(slots=True)
class Report:
    """The outcome of a reconcile.

    Args:
        findings: the first findings of each table, with their rows.
        counts: all of them, by (projection, relation, kind).
        audited: the projections that were compared.
        skipped: those that could not be, and why.
    """

    findings: list[Finding] = field(default_factory=list)
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    audited: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    @property
    def drift(self) -> int:
        """How many keys differed."""
        return self.counts.total()
