"""The columns behind the columns of a transform, found by observation: one field of an event is changed at a time.

A function tells nothing of itself. What is seen is a lower bound: a field that mattered in none of these events is not
found.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg

from refold.engine.apply.decoding import decoded
from refold.model.lineage.columns import ColumnLineage, Source
from refold.model.projection.failure import FunctionFailed
from refold.model.projection.transform import Transform
from refold.model.upkeep.transform import applied_rows
from refold.store.builds.compiled import CompiledBuild

EVENTS = 20
"""Events on which a function is observed."""
LONGEST_S = 2.0
"""Seconds after which a function that is slow is observed on no further event."""
Rows = Sequence[tuple[Any, ...]]


def observed(
    conn: psycopg.Connection, compiled: CompiledBuild, parameters: Mapping[str, Any], relation: str
) -> ColumnLineage:
    """Return the columns behind the columns of a transform, observed on some events that it has processed.

    Args:
        conn: the caller's transaction.
        compiled: the transform's build.
        parameters: the cursor of the build.
        relation: the name of its stream.
    """
    transform = compiled.transform
    assert transform is not None
    query = applied_rows(transform, compiled.stream, since=False, condition="true") + f" LIMIT {EVENTS}"
    try:
        rows = list(decoded(conn, query, parameters))
    except FunctionFailed as error:
        return ColumnLineage(unknown=f"an event cannot be read: {error}")
    return observe(transform, rows, relation)


def observe(
    transform: Transform, rows: Sequence[Mapping[str, Any]], relation: str, seconds: float = LONGEST_S
) -> ColumnLineage:
    """Return what is seen if one field of an event is changed at a time.

    Args:
        transform: the transform.
        rows: rows of the stream, with coordinates.
        relation: the name of the stream.
        seconds: time after which no further event is looked at.
    """
    outputs = [column.name for column in transform.plan.columns if column.name != "event_id"]
    # Each row has the id of its event by construction.
    fields = [name for name in transform.plan.reads if name != "event_id"]
    seen = _Seen(outputs)
    end = time.monotonic() + seconds
    number = 0
    for row in rows:
        before = _answer(transform, row)
        if before is None:
            continue
        number += 1
        for field in fields:
            seen.compare(field, row[field], before)
            for value in _others(row[field], (one[field] for one in rows)):
                if (after := _answer(transform, {**row, field: value})) is not None:
                    seen.change(field, before, after)
        if time.monotonic() > end:
            break
    if not number:
        return ColumnLineage(unknown="it has processed no event yet")
    columns: dict[str, tuple[Source, ...] | None] = {name: seen.sources(name, relation) for name in outputs}
    columns["event_id"] = (Source(relation, "event_id", "DIRECT", "TRANSFORMATION" if transform.many else "IDENTITY"),)
    return ColumnLineage(columns, seen.deciding(relation), observed=number)


class _Seen:
    """What was seen of a function.

    Args:
        outputs: its columns without event_id, in order.
    """

    def __init__(self, outputs: Sequence[str]) -> None:
        self.outputs = outputs
        self.matters: set[tuple[str, str]] = set()
        self.differs: set[tuple[str, str]] = set()
        self.decides: set[str] = set()

    def compare(self, field: str, value: Any, made: Rows) -> None:
        """Note the outputs that do not have the value of a field."""
        self.differs |= {(field, name) for row in made for at, name in enumerate(self.outputs) if row[at] != value}

    def change(self, field: str, before: Rows, after: Rows) -> None:
        """Note the outputs that change with a field."""
        if len(before) != len(after):
            self.decides.add(field)
        self.matters |= {
            (field, name)
            for one, other in zip(before, after, strict=False)
            for at, name in enumerate(self.outputs)
            if one[at] != other[at]
        }

    def sources(self, name: str, relation: str) -> tuple[Source, ...]:
        """Return the sources of a column."""
        return tuple(
            Source(relation, field, "DIRECT", "TRANSFORMATION" if (field, name) in self.differs else "IDENTITY")
            for field, output in sorted(self.matters)
            if output == name
        )

    def deciding(self, relation: str) -> tuple[Source, ...]:
        """Return the fields that decide how many rows there are."""
        return tuple(Source(relation, field, "INDIRECT", "FILTER") for field in sorted(self.decides))


def _answer(transform: Transform, row: Mapping[str, Any]) -> list[tuple[Any, ...]] | None:
    """Return the rows of an event without coordinates and id; None if the function fails."""
    with suppress(FunctionFailed):
        return [made[4:] for made in transform.rows([row])]
    return None


def _others(value: Any, known: Iterable[Any]) -> Iterator[Any]:
    """Yield values that a field could have instead: made of its own, and those of other events."""
    yield from _changed(value)
    told = 0
    for other in known:
        if other != value and told < 3:
            told += 1
            yield other
    if value is not None:
        yield None


def _changed(value: Any) -> Iterator[Any]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | Decimal | float):
        yield value + 1
        yield -value
    elif isinstance(value, str):
        yield f"{value}x"
        yield ""
    elif isinstance(value, datetime | date):
        for days in (1, 40, 400):
            with suppress(OverflowError):
                yield value + timedelta(days=days)
    elif isinstance(value, dict):
        for key, one in value.items():
            yield {name: other for name, other in value.items() if name != key}
            for other in _changed(one):
                yield {**value, key: other}
        yield {}
    elif isinstance(value, list):
        yield []
        yield [*value, *value]
        for at, one in enumerate(value[:3]):
            for other in _changed(one):
                yield [*value[:at], other, *value[at + 1 :]]
