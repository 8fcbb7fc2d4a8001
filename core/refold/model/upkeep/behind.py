"""The events behind a row: which events of the stream a row is made of, and what each of them gave to it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlglot import exp

from refold.model.projection.plan import Funnel, Members, Partial, Plan
from refold.model.projection.sqlglot_compat import expression, row_sql
from refold.model.sql_text import ident, in_order, indent, literal, where
from refold.model.stream.page_sql import LOG_TABLE, Stream
from refold.model.upkeep.statements import Relation

How = Literal["gives", "adds", "attains", "decides", "reaches"]
"""What an event does for a column: it gives a number to a count or sum; it adds a value that no event before it has to
a distinct count; it attains the minimum or maximum; it decides a bool_and or bool_or; it reaches a step of a funnel."""
ALONE: tuple[How, ...] = ("attains", "decides", "reaches")
"""What at most one event does for a column or step."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What the events behind a row did for one column.

    Args:
        column: the kept column.
        how: what an event did.
        value: what an event brings, as SQL over a row of the stream; NULL if it brings nothing.
        hit: whether an event is one that the mark tells, as SQL over the value (see `_X`); empty for `gives`.
        step: for a funnel, the number of its step.
    """

    column: str
    how: How
    value: str
    hit: str = ""
    step: int | None = None


_ORDER = "txid, position, ordinal"
_X = "{x}"
"""Stands for a mark's value in its `hit`."""


def marks(plan: Plan) -> tuple[Mark, ...]:
    """Return what can be told of the events behind a row of a projection, column by column.

    A query that is recomputed has none: what an event does in it is known to the query alone.
    """
    found: list[Mark] = []
    members = {one.partial: one for one in plan.members}
    for partial in plan.partials:
        found.append(_of_members(members[partial.name]) if partial.sql is None else _of_partial(partial))
    for number, funnel in enumerate(plan.funnels):
        found += _of_funnel(number, funnel)
    return tuple(found)


def statement(plan: Plan, stream: Stream, relation: Relation, scope: str) -> str:
    """Return the query for the events behind a row, in order of the stream, each with its event of the log.

    Its rows: number of the event, number of all events, txid, position, ordinal, event_id (in the stream), values and
    hits of `marks`, how many hits each mark has, and event_id, user_id, action, ts and metadata of the event of the
    log. Besides the first `shown` events it has those that attain, decide or reach.

    Args:
        plan: the plan of the projection.
        stream: the relation that the build reads.
        relation: the build's first table.
        scope: the condition on the stream's rows from `of_key`.
    """
    told = marks(plan)
    reads = [name for name in plan.reads if name not in ("txid", "position", "ordinal", "event_id")]
    carried = ", ".join(
        ["txid", "position", "ordinal" if stream.ordinal else "0 AS ordinal", "event_id", *map(ident, reads)]
    )
    own = None if plan.where is None or plan.upkeep == "facts" else f"({literal(plan.where)})"
    values = [f"{literal(one.value)} AS x__{at}" for at, one in enumerate(told)]
    chains = [
        f"chain__{at} AS MATERIALIZED (\n    SELECT refold.window_funnel_chain({literal(one.events)}) AS times\n"
        f"    FROM read{where(own)}\n)"
        for at, one in enumerate(plan.funnels)
    ]
    hits = [f"{one.hit.replace(_X, f'x__{at}') or 'false'} AS h__{at}" for at, one in enumerate(told)]
    special = [f"h__{at}" for at, one in enumerate(told) if one.how in ALONE]
    sums = [f"count(*) FILTER (WHERE h__{at}) OVER () AS n__{at}" for at in range(len(told))]

    def array(of: str, kind: str, cast: str = "{}") -> str:
        return f"ARRAY[{', '.join(cast.format(f'{of}__{at}') for at in range(len(told)))}]::{kind}[]"

    parts = [
        f"read AS MATERIALIZED (\n    SELECT {carried}\n    FROM {stream.table}\n"
        f"{indent('WHERE ' + scope)}\n    OFFSET 0\n)",
        *chains,
        f"valued AS MATERIALIZED (\n    SELECT {', '.join([_ORDER, 'event_id', *values])}\n    FROM read"
        f"{where(own)}\n)",
        f"marked AS (\n    SELECT *, {', '.join([*hits, 'count(*) OVER () AS total__'])},\n"
        f"           row_number() OVER (ORDER BY {_ORDER}) AS at__\n    FROM valued\n)",
        f"told AS (\n    SELECT {', '.join(['*', *sums])} FROM marked\n)",
    ]
    # LATERAL and OFFSET 0 keep the nested loop, which finds each event in the log by its coordinates.
    return (
        "WITH " + ",\n".join(parts) + "\n"
        "SELECT t.at__, t.total__, t.txid::text::bigint, t.position, t.ordinal, t.event_id,\n"
        f"       {array('x', 'jsonb', 'to_jsonb({})')}, {array('h', 'boolean')}, {array('n', 'bigint')},\n"
        "       e.event_id, e.user_id, e.action, e.ts, e.metadata\n"
        "FROM told AS t\n"
        "LEFT JOIN LATERAL (\n"
        f"    SELECT * FROM {LOG_TABLE} AS l WHERE l.txid = t.txid AND l.position = t.position OFFSET 0\n"
        ") AS e ON true\n"
        f"WHERE {' OR '.join(['t.at__ <= %(shown)s::bigint', *special])}\n"
        "ORDER BY t.at__"
    )


def of_event(stream: Stream, position: int) -> str:
    """Return the condition that a row of the stream has the id in the parameter `source_id`.

    Args:
        stream: the relation that the build reads.
        position: the position of the event, if it is known: the log has no index on ids.
    """
    at = "" if stream.ordinal or not position else f"position = {position} AND "
    return f'{at}event_id = %(source_id)s::text COLLATE "C"'


def of_key(plan: Plan, stream: Stream, relation: Relation, slice_: int, position: int = 0) -> tuple[str, str]:
    """Return two conditions on rows of the stream: that they may belong to a key, and that they belong to it.

    The first is for `Relation.expected`, which adds the cursor; the second contains the cursor. The key is in the
    parameter `key_hash`; the id of the event of an event-grain build is in `source_id`.

    Args:
        plan: the plan of the projection.
        stream: the relation that the build reads.
        relation: the build's first table.
        slice_: the slice of the key's rows.
        position: the position of the event of an event-grain build, if it is known.
    """
    if plan.event_grain:
        event = of_event(stream, position)
        own = None if plan.where is None else f"({literal(plan.where)})"
        return event, f"{event}\n  AND {in_order(stream.applied(), own)}"
    hashed = f"{relation.stream_hash} = %(key_hash)s::bigint"
    if plan.upkeep in ("merge", "members"):
        # Its hash contains the cursor. An index on time finds the events of a day.
        if relation.slicing.kind == "day":
            hashed = f"{relation.slicing.scope([(slice_, slice_)])[0]}\n  AND {hashed}"
        return hashed, hashed
    return hashed, f"{hashed}\n  AND {stream.applied()}"


def _of_members(one: Members) -> Mark:
    value = one.member if one.condition is None else f"CASE WHEN {one.condition} THEN {one.member} END"
    return Mark(
        one.partial,
        "adds",
        value,
        f"({_X} IS NOT NULL AND row_number() OVER (PARTITION BY {_X} ORDER BY {_ORDER}) = 1)",
    )


def _of_partial(partial: Partial) -> Mark:
    assert partial.sql is not None
    node = expression(partial.sql)
    condition = None
    if isinstance(node, exp.Filter):
        condition = row_sql(node.expression.this)
        node = node.this
    argument = "1" if isinstance(node.this, exp.Star) else row_sql(node.this)
    if partial.combine == "count":
        argument = "1" if isinstance(node.this, exp.Star) else f"nullif(num_nonnulls({argument}), 0)"
    value = argument if condition is None else f"CASE WHEN {condition} THEN {argument} END"
    first = f"row_number() OVER (ORDER BY {{}}, {_ORDER}) = 1"
    if partial.combine in ("min", "max"):
        direction = f"{_X} {'ASC' if partial.combine == 'min' else 'DESC'} NULLS LAST"
        return Mark(partial.name, "attains", value, f"({_X} IS NOT NULL AND {first.format(direction)})")
    if partial.combine in ("bool_and", "bool_or"):
        sought = f"{_X} IS {'FALSE' if partial.combine == 'bool_and' else 'TRUE'}"
        return Mark(partial.name, "decides", value, f"({sought} AND {first.format(f'({sought}) DESC')})")
    return Mark(partial.name, "gives", value)


def _of_funnel(number: int, funnel: Funnel) -> Iterator[Mark]:
    node = expression(funnel.events)
    condition = ""
    if isinstance(node, exp.Filter):
        condition = f"({row_sql(node.expression.this)}) AND "
        node = node.this
    call = next((one for one in node.find_all(exp.Anonymous) if one.this == "window_funnel_event"), None)
    if call is None:
        return
    _, time, *steps = call.expressions
    times = f"(SELECT times FROM chain__{number})"
    for step, one in enumerate(steps, start=1):
        value = f"CASE WHEN {condition}({row_sql(one)}) THEN ({row_sql(time)})::timestamptz END"
        reached = f"coalesce({_X} = {times}[{step}], false)"
        hit = f"({reached} AND row_number() OVER (PARTITION BY {reached} ORDER BY {_ORDER}) = 1)"
        yield Mark(_shown(funnel), "reaches", value, hit, step)


def _shown(funnel: Funnel) -> str:
    shown: Sequence[str] = (*funnel.level, *funnel.times)
    return shown[0] if shown else funnel.state
