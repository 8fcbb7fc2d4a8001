"""Which part of a projection is audited: all of it, or what events since an instant belong to. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from refold.model.projection.plan import Plan
from refold.model.sql_text import EVERYTHING, ident
from refold.model.stream.page_sql import Stream
from refold.model.stream.slices import Range, day_unit
from refold.model.upkeep.statements import Relation


@dataclass(frozen=True, slots=True)
class Scope:
    """Two conditions that select the same keys: one on the stream's rows, one on the table's."""

    stream: str
    table: str


WHOLE = Scope(EVERYTHING, EVERYTHING)


def since(plan: Plan, relation: Relation, stream: Stream) -> Scope:
    """The keys that events since the parameter `since` belong to.

    Where a part of the key is the event's day (or hour, week, …) in UTC, these are all rows from that day
    on, with or without events. Otherwise they are the keys of those events.
    """
    for part in plan.key:
        start = _rounded(part.sql)
        if start is not None:
            return Scope(f"{part.sql} >= {start}", f"{ident(part.name)} >= {start}")
    keys = f"IN (SELECT {relation.stream_hash} FROM {stream.table} WHERE ts >= %(since)s::timestamptz)"
    return Scope(f"{relation.stream_hash} {keys}", f"{relation.hash} {keys}")


def within(relation: Relation, ranges: Sequence[Range]) -> Scope:
    """The keys of some slices."""
    return Scope(*relation.slicing.scope(ranges))


def both(one: Scope, other: Scope) -> Scope:
    """The keys in two scopes."""
    return Scope(f"({one.stream})\n  AND {other.stream}", f"({one.table})\n  AND {other.table}")


def _rounded(sql: str) -> str | None:
    """The parameter `since` rounded as a key's expression rounds ts; None when the key is something else."""
    if day_unit(sql) is None:
        return None
    return sql.replace("(ts AT TIME ZONE", "(%(since)s::timestamptz AT TIME ZONE").replace(
        " ts AT TIME ZONE", " %(since)s::timestamptz AT TIME ZONE"
    )
