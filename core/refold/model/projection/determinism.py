"""Refuse queries that refold cannot keep exactly: a metric must be a deterministic function of the set of events.

Its result must not depend on the time of evaluation, on arrival order, on the session's time zone, or on the order in
which floats are added. Each refusal names the line, and says what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from sqlglot import exp

from refold.model.projection.uniqueness import tells_apart

Words = Callable[[exp.Expr], str]


class Refusal(NamedTuple):
    """Reason why a query cannot be kept exactly.

    Args:
        node: the part of the query that is refused.
        message: what is wrong with it.
        remedy: what to write instead.
    """

    node: exp.Expr
    message: str
    remedy: str


_CLOCKS = (
    exp.CurrentTimestamp,
    exp.CurrentDate,
    exp.CurrentTime,
    exp.CurrentDatetime,
    exp.Localtimestamp,
    exp.Localtime,
)
_VOLATILE = {
    "now": "the time of evaluation",
    "clock_timestamp": "the time of evaluation",
    "statement_timestamp": "the time of evaluation",
    "transaction_timestamp": "the time of evaluation",
    "timeofday": "the time of evaluation",
    "age": "the time of evaluation when given one argument",
    "random": "chance",
    "random_normal": "chance",
    "setseed": "chance",
    "gen_random_uuid": "chance",
    "uuid_generate_v4": "chance",
    "uuidv4": "chance",
    "uuidv7": "chance",
    "nextval": "a sequence",
    "currval": "a sequence",
    "pg_current_xact_id": "the transaction",
    "txid_current": "the transaction",
    "current_setting": "the session's settings",
    "pg_backend_pid": "the session",
    "inet_client_addr": "the session",
}
_SESSION = (exp.CurrentUser, exp.SessionUser, exp.CurrentSchema, exp.CurrentCatalog)
_INSTANTS = {"ts"}
_ORDERED_AGGREGATES = (exp.ArrayAgg, exp.GroupConcat, exp.JSONArrayAgg, exp.JSONObjectAgg)
_ORDERED_AGGREGATE_NAMES = {
    "json_agg",
    "jsonb_agg",
    "string_agg",
    "array_agg",
    "xmlagg",
    "json_object_agg",
    "jsonb_object_agg",
}
_TIE_SENSITIVE = (exp.RowNumber, exp.Lag, exp.Lead, exp.FirstValue, exp.LastValue, exp.NthValue, exp.Ntile)
_MOVING = re.compile(r"\s*(now|today|tomorrow|yesterday)\b", re.IGNORECASE)
_TIMES = (exp.DType.DATE, exp.DType.TIME, exp.DType.TIMETZ, exp.DType.TIMESTAMP, exp.DType.TIMESTAMPTZ)
_FLOATS = (exp.DType.DOUBLE, exp.DType.FLOAT)
_POSTGRES_NAMES = {
    "group_concat": "string_agg",
    "j_s_o_n_array_agg": "json_agg",
    "j_s_o_n_object_agg": "json_object_agg",
    "j_s_o_n_b_object_agg": "jsonb_object_agg",
    "rand": "random",
    "uuid": "gen_random_uuid",
}
"""Functions to which sqlglot gives another name: its name for them, and that of Postgres."""


def refusals(query: exp.Expr, words: Words) -> Iterator[Refusal]:
    """Yield every reason why a query cannot be kept exactly.

    Args:
        query: the query.
        words: returns a part of the query as its author wrote it.
    """
    for node in query.walk():
        yield from _clock_or_chance(node, words)
        yield from _limits(node)
        yield from _session_dates(node, words)
        yield from _moving_dates(node, words)
        yield from _unordered(node, words)
        yield from _float_sums(node, words)


def function_name(node: exp.Expr) -> str:
    """Return the lower-case name that Postgres has for a function call; '' for any other expression."""
    if isinstance(node, exp.Anonymous):
        return str(node.this).lower()
    if isinstance(node, exp.Func):
        name = node.sql_name().lower()
        return _POSTGRES_NAMES.get(name, name)
    return ""


def _clock_or_chance(node: exp.Expr, words: Words) -> Iterator[Refusal]:
    name = function_name(node)
    if isinstance(node, _CLOCKS):
        yield Refusal(
            node,
            f"{words(node)} depends on the time of evaluation",
            "Compare with the event's own ts, or put the condition into a view in sql/views/.",
        )
    elif isinstance(node, _SESSION):
        yield Refusal(node, f"{words(node)} depends on the session", "Remove it from the projection.")
    elif isinstance(node, exp.Rand) or name in _VOLATILE:
        if name == "age" and len(node.expressions) != 1:
            return
        cause = _VOLATILE.get(name, "chance")
        yield Refusal(
            node, f"{words(node)} depends on {cause}", "Remove it: a projection may depend on its events alone."
        )


def _limits(node: exp.Expr) -> Iterator[Refusal]:
    if isinstance(node, exp.Limit | exp.Offset | exp.Fetch):
        yield Refusal(
            node,
            "LIMIT and OFFSET make each row depend on all other rows",
            "Keep every row here, and put LIMIT and OFFSET into a view in sql/views/.",
        )
    elif isinstance(node, exp.TableSample):
        yield Refusal(node, "TABLESAMPLE depends on chance", "Filter on a hash of event_id instead.")


def _session_dates(node: exp.Expr, words: Words) -> Iterator[Refusal]:
    remedy = "Name the time zone: (ts AT TIME ZONE 'UTC')."
    if isinstance(node, exp.Cast | exp.TryCast) and _is_instant(node.this):
        kind = node.to.this
        if kind in (exp.DType.DATE, exp.DType.TIME, exp.DType.TIMESTAMP, exp.DType.TEXT, exp.DType.VARCHAR):
            yield Refusal(node, f"{words(node)} depends on the session's time zone", remedy)
    elif isinstance(node, exp.TimestampTrunc | exp.DateTrunc) and not node.args.get("zone") and _is_instant(node.this):
        yield Refusal(node, f"{words(node)} depends on the session's time zone", remedy)
    elif isinstance(node, exp.Extract) and _is_instant(node.expression):
        if str(node.this).lower() not in ("epoch",):
            yield Refusal(node, f"{words(node)} depends on the session's time zone", remedy)
    elif function_name(node) in ("to_char", "time_to_str", "date_part", "date", "date_bin_local") and any(
        _is_instant(argument) for argument in node.iter_expressions()
    ):
        yield Refusal(node, f"{words(node)} depends on the session's time zone", remedy)


def _moving_dates(node: exp.Expr, words: Words) -> Iterator[Refusal]:
    """Refuse 'now', 'today' and similar literals where Postgres reads them as a time."""
    if not (isinstance(node, exp.Literal) and node.is_string and _MOVING.match(node.this)):
        return
    above = node.parent
    while isinstance(above, exp.Paren | exp.Tuple):
        above = above.parent
    if isinstance(above, exp.Cast | exp.TryCast):
        dated = above.to.this in _TIMES
    else:
        dated = isinstance(above, exp.Binary | exp.Between | exp.In) and any(
            (isinstance(part, exp.Column) and part.name.lower() in _INSTANTS)
            or (isinstance(part, exp.Cast) and part.to.this in _TIMES)
            for part in above.walk()
        )
    if dated:
        yield Refusal(
            node,
            f"{words(node)} depends on the time of evaluation",
            "Compare with the event's own ts, or put the condition into a view in sql/views/.",
        )


def _is_instant(node: exp.Expr | None) -> bool:
    while isinstance(node, exp.Paren):
        node = node.this
    return isinstance(node, exp.Column) and node.name.lower() in _INSTANTS


def _unordered(node: exp.Expr, words: Words) -> Iterator[Refusal]:
    name = function_name(node)
    if isinstance(node, _ORDERED_AGGREGATES) or name in _ORDERED_AGGREGATE_NAMES:
        inner = node.find(exp.Order)
        if inner is None or not _breaks_ties(inner, node):
            yield Refusal(
                node,
                f"{name or 'this aggregate'} depends on the order in which events are read",
                "Add an ORDER BY without ties to the aggregate: ORDER BY ts, event_id.",
            )
    elif isinstance(node, exp.Window) and (
        isinstance(_windowed(node), _TIE_SENSITIVE)
        or (node.args.get("spec") is not None and node.args["spec"].args.get("kind") == "ROWS")
    ):
        order = node.args.get("order")
        if order is None or not (_breaks_ties(order, None) or tells_apart(node, order)):
            yield Refusal(
                node,
                f"{words(node.this)} depends on how ties are ordered",
                "End the window's ORDER BY with event_id; over grouped rows, partition and order by all columns of"
                " their GROUP BY.",
            )
    elif isinstance(node, exp.Distinct) and node.args.get("on") is not None:
        select = node.parent
        order = select.args.get("order") if select is not None else None
        if order is None or not _breaks_ties(order, None):
            yield Refusal(
                node, "DISTINCT ON depends on how ties are ordered", "End the ORDER BY of its SELECT with event_id."
            )


def _windowed(node: exp.Window) -> exp.Expr:
    inner: exp.Expr = node.this
    while isinstance(inner, exp.IgnoreNulls | exp.RespectNulls | exp.Filter):
        inner = inner.this
    return inner


def _breaks_ties(order: exp.Expr, aggregate: exp.Expr | None) -> bool:
    terms = [term.this if isinstance(term, exp.Ordered) else term for term in order.expressions]
    if any(isinstance(term, exp.Column) and term.name.lower() == "event_id" for term in terms):
        return True
    # An aggregate that is ordered by its own argument has only ties of equal values, which look the same.
    if aggregate is None or not terms:
        return False
    inner = order.this if isinstance(order.this, exp.Expr) else aggregate.this
    separator = aggregate.args.get("separator")
    if separator is not None and not isinstance(separator, exp.Literal):
        return False
    if isinstance(inner, exp.Distinct) and len(inner.expressions) == 1:
        inner = inner.expressions[0]
    return bool(isinstance(inner, exp.Expr) and inner.sql() == terms[0].sql())


def _float_sums(node: exp.Expr, words: Words) -> Iterator[Refusal]:
    if not isinstance(node, exp.Sum | exp.Avg):
        return
    argument = node.this
    while isinstance(argument, exp.Paren):
        argument = argument.this
    if isinstance(argument, exp.Cast) and argument.to.this in _FLOATS:
        yield Refusal(
            node,
            f"{words(node)} adds floats, whose sum depends on the order of the events",
            "Cast to numeric instead of double precision.",
        )
