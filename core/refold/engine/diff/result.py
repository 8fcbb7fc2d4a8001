"""What a comparison of two builds finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from refold.model.diff.shape import Shape

Kind = Literal["modified", "added", "removed", "in flight"]


@dataclass(frozen=True, slots=True)
class Rows:
    """How many rows of both builds were read, by kind.

    Args:
        identical: rows that are equal.
        modified: keys whose rows differ.
        added: rows that only the second build has.
        removed: rows that only the first build has.
        in_flight: keys that differ and have events which only one build has reached.
    """

    identical: int = 0
    modified: int = 0
    added: int = 0
    removed: int = 0
    in_flight: int = 0

    @property
    def differing(self) -> int:
        """Return the number of rows that differ, without those in flight."""
        return self.modified + self.added + self.removed


@dataclass(frozen=True, slots=True)
class Slices:
    """How many slices were read.

    Args:
        equal: slices whose checksums agree in both builds, and which were therefore not read.
        rows: rows of the table in these slices.
        read: slices that were read; None if all rows were read without a choice of slices.
        first: the first slice with a difference, in words; None if there is none, or if slices differ.
        last: the last slice with a difference, in words.
        first_number: the number of the first slice with a difference.
        by_day: whether slices are days.
    """

    equal: int = 0
    rows: int = 0
    read: int | None = None
    first: str | None = None
    last: str | None = None
    first_number: int | None = None
    by_day: bool = False


@dataclass(frozen=True, slots=True)
class ColumnDiff:
    """How a column differs among modified rows.

    Args:
        name: the column.
        rows: in how many rows it differs.
        sum: the sum of the second value less the first, exact; None unless numbers differ.
        most: the greatest absolute difference, exact.
    """

    name: str
    rows: int
    sum: Decimal | None = None
    most: Decimal | None = None


@dataclass(frozen=True, slots=True)
class OneSided:
    """The events behind a row that only one build used.

    Args:
        both: number of events that both builds used.
        before: number of events that only the first build used.
        after: number of events that only the second build used.
        before_ids: ids of the first of them, in the order of the log; None for an event that the log has no more.
        after_ids: the same for the second build.
        purged: whether a build counts events, too, that were purged from the log: these are not among the others.
    """

    both: int
    before: int
    after: int
    before_ids: tuple[str | None, ...]
    after_ids: tuple[str | None, ...]
    purged: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """A row that differs, as texts.

    Args:
        kind: how it differs.
        key: its key; None is NULL.
        before: the row in the first build; None if there is none.
        after: the row in the second build; None if there is none.
        events: the events that only one build used, if they were asked for.
    """

    kind: Kind
    key: Mapping[str, str | None]
    before: Mapping[str, str | None] | None
    after: Mapping[str, str | None] | None
    events: OneSided | None = None

    def changes(self) -> list[tuple[str, str | None, str | None]]:
        """Return the columns whose texts differ: name, first value, second value."""
        before, after = self.before or {}, self.after or {}
        names = dict.fromkeys((*before, *after))
        return [(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]


@dataclass(frozen=True, slots=True)
class Side:
    """A build that was compared."""

    build_id: int
    number: int
    state: str
    table: str
    dead_letters: int


@dataclass(frozen=True, slots=True)
class Diff:
    """How two builds of a metric differ.

    Args:
        metric: the projection.
        before: the live build.
        after: the other build.
        shape: how their columns differ.
        rows: how many rows differ; of builds with different keys, all rows are added and removed.
        slices: what was read for it.
        columns: the columns in which modified rows differ, and no others.
        samples: the first rows of each kind.
        kept_from: the first day of the rows that were compared, if one of the builds keeps fewer; None: all were.
    """

    metric: str
    before: Side
    after: Side
    shape: Shape
    rows: Rows
    slices: Slices
    columns: tuple[ColumnDiff, ...] = ()
    samples: tuple[Sample, ...] = ()
    kept_from: str | None = None

    @property
    def same(self) -> bool:
        """Return whether analysts see the same in both builds, apart from what is in flight."""
        return self.shape.same and not self.rows.differing

    def as_dict(self) -> dict[str, Any]:
        """Return the difference as a dict for JSON; decimal numbers are texts, because JSON readers round them."""
        return {
            "metric": self.metric,
            "same": self.same,
            "kept_from": self.kept_from,
            "before": _fields(self.before),
            "after": _fields(self.after),
            "shape": {
                "added": [{"column": name, "type": kind} for name, kind in self.shape.added],
                "removed": [{"column": name, "type": kind} for name, kind in self.shape.removed],
                "retyped": [_fields(one) for one in self.shape.retyped],
                "key_before": list(self.shape.key_before),
                "key_after": list(self.shape.key_after),
            },
            "rows": _fields(self.rows),
            "slices": {
                name: value for name, value in _fields(self.slices).items() if name not in ("first_number", "by_day")
            },
            "columns": [
                {"column": one.name, "rows": one.rows, "sum": _decimal(one.sum), "most": _decimal(one.most)}
                for one in self.columns
            ],
            "samples": [
                {
                    "kind": one.kind,
                    "key": dict(one.key),
                    "before": one.before,
                    "after": one.after,
                    **({} if one.events is None else {"events": _fields(one.events)}),
                }
                for one in self.samples
            ],
        }


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def _decimal(value: Decimal | None) -> str | None:
    return None if value is None else format(value, "f")
