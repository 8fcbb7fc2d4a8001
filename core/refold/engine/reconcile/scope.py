"""The scope of an audit: all of a projection, some slices, or the keys of events since an instant. Pure."""

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
    """Two conditions that select the same keys: on the stream's rows and on the table's rows."""

    stream: str
    table: str


WHOLE = Scope(EVERYTHING, EVERYTHING)


def since(plan: Plan, relation: Relation, stream: Stream) -> Scope:
    """Return the scope of the keys of events since the parameter `since`.

    If a part of the key is the event's day (or hour, week, …) in UTC, the scope has all rows from that day on, even
    those without events. Otherwise it has the keys of those events.
    """
    for part in plan.key:
        start = _rounded(part.sql)
        if start is not None:
            return Scope(f"{part.sql} >= {start}", f"{ident(part.name)} >= {start}")
    keys = f"IN (SELECT {relation.stream_hash} FROM {stream.table} WHERE ts >= %(since)s::timestamptz)"
    return Scope(f"{relation.stream_hash} {keys}", f"{relation.hash} {keys}")


def within(relation: Relation, ranges: Sequence[Range]) -> Scope:
    """Return the scope of some slices."""
    return Scope(*relation.slicing.scope(ranges))


def both(one: Scope, other: Scope) -> Scope:
    """Return the scope of the keys that are in both scopes."""
    return Scope(f"({one.stream})\n  AND {other.stream}", f"({one.table})\n  AND {other.table}")


def _rounded(sql: str) -> str | None:
    """Return the parameter `since`, rounded as a key rounds ts; None if the key is another expression."""
    if day_unit(sql) is None:
        return None
    return sql.replace("(ts AT TIME ZONE", "(%(since)s::timestamptz AT TIME ZONE").replace(
        " ts AT TIME ZONE", " %(since)s::timestamptz AT TIME ZONE"
    )
