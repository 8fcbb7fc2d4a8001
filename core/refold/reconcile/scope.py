"""Which part of a projection is audited: all of it, or what events since an instant belong to. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import sqlglot
from sqlglot import exp

from refold.projections.identifiers import ident
from refold.projections.plan import Plan
from refold.upkeep.statements import EVERYTHING, Relation
from refold.upkeep.stream import Stream


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


def _rounded(sql: str) -> str | None:
    """The parameter `since` rounded as a key's expression rounds ts; None when the key is something else."""
    node = sqlglot.parse_one(sql, read="postgres")
    columns = list(node.find_all(exp.Column))
    if len(columns) != 1 or columns[0].name != "ts":
        return None
    inner: exp.Expr = node
    while isinstance(inner, exp.Paren | exp.Cast | exp.TimestampTrunc | exp.DateTrunc):
        if isinstance(inner, exp.Cast) and inner.to.this not in (exp.DType.DATE, exp.DType.TIMESTAMP):
            return None
        inner = inner.this
    zone = inner.args.get("zone") if isinstance(inner, exp.AtTimeZone) else None
    if not isinstance(zone, exp.Literal) or zone.this.upper() != "UTC" or inner.this is not columns[0]:
        return None
    return sql.replace("(ts AT TIME ZONE", "(%(since)s::timestamptz AT TIME ZONE").replace(
        " ts AT TIME ZONE", " %(since)s::timestamptz AT TIME ZONE"
    )
