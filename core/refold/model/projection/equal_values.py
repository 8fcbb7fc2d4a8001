"""Normalisation of values that are equal but not identical, such as 1.0 and 1.00, -0 and 0, or a month and 30 days.

Keys, minima and ordered aggregates keep one of several equal values, and which one would depend on the order of the
events. There the query reads a normal form of the value (`sql/functions/plain.sql`). Types without a normal form are
refused by `refold.engine.verify.readings`. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from sqlglot import exp

from refold.model.projection.sqlglot_compat import expression, row_sql
from refold.model.sql_text import must_quote

PLAIN = "refold.plain"

_ALIKE = (
    exp.DType.DATE,
    exp.DType.TIMESTAMP,
    exp.DType.TIMESTAMPTZ,
    exp.DType.TIME,
    exp.DType.TEXT,
    exp.DType.VARCHAR,
    exp.DType.SMALLINT,
    exp.DType.INT,
    exp.DType.BIGINT,
    exp.DType.BOOLEAN,
    exp.DType.UUID,
)
"""Types whose equal values are identical."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A place in a query where one of several equal values is kept.

    Args:
        node: the expression, as its author wrote it.
        what: the clause or aggregate that keeps it, such as GROUP BY or min.
    """

    node: exp.Expr
    what: str


def alike(node: exp.Expr, texts: Collection[str] = ()) -> bool:
    """Return whether equal values of an expression are certainly identical, judged without its type.

    Args:
        node: the expression.
        texts: the columns whose equal values are known to be identical.
    """
    if isinstance(node, exp.Column):
        return node.name in texts
    if isinstance(node, exp.Paren | exp.Upper | exp.Lower | exp.TimestampTrunc | exp.DateTrunc | exp.AtTimeZone):
        return alike(node.this, {"ts", *texts} if isinstance(node, exp.AtTimeZone) else texts)
    if isinstance(node, exp.Cast):
        return node.to.this in _ALIKE
    return isinstance(
        node, exp.Literal | exp.Boolean | exp.Null | exp.JSONExtractScalar | exp.Predicate | exp.Connector | exp.Not
    )


def plain(sql: str, texts: Collection[str] = ()) -> str:
    """Return the SQL that gives an expression's value in its normal form.

    Args:
        sql: the expression.
        texts: the columns whose equal values are known to be identical.
    """
    return sql if alike(expression(sql), texts) else f"{PLAIN}({sql})"


def plain_argument(call: exp.Expr, texts: Collection[str] = ()) -> None:
    """Rewrite the argument of min or max to the normal form of its values, in place."""
    argument = call.this.expressions[0] if isinstance(call.this, exp.Distinct) else call.this
    _wrap(argument, texts)


def made_plain(query: exp.Expr, texts: Collection[str] = (), *, only: int | None = None) -> list[Choice]:
    """Rewrite a query, in place, so that it keeps the normal form of equal values; return all its choices.

    Args:
        query: the query.
        texts: the columns whose equal values are known to be identical.
        only: the index of the one choice to rewrite; all of them by default.

    Returns:
        All choices of the query, in its order, also those that are not rewritten.
    """
    # Collect all places before the first is replaced: a place may lie within another.
    places = [(Choice(shown.copy(), what), nodes) for shown, what, nodes in _places(query)]
    for at, (_, nodes) in enumerate(places):
        if only is None or at == only:
            for node in nodes:
                _wrap(node, texts)
    return [choice for choice, _ in places]


def _wrap(node: exp.Expr, texts: Collection[str]) -> None:
    if alike(node, texts) or (isinstance(node, exp.Anonymous) and node.this == PLAIN):
        return
    spelled: exp.Expr = exp.Anonymous(this=PLAIN, expressions=[node.copy()])
    bare = node.this if isinstance(node, exp.Cast) else node
    if isinstance(node.parent, exp.Select) and node.arg_key == "expressions" and isinstance(bare, exp.Column):
        spelled = exp.alias_(spelled, exp.to_identifier(bare.name, quoted=must_quote(bare.name)))
    node.replace(spelled)


def _places(query: exp.Expr) -> Iterator[tuple[exp.Expr, str, list[exp.Expr]]]:
    for node in list(query.walk()):
        if isinstance(node, exp.Min | exp.Max):
            argument = node.this.expressions[0] if isinstance(node.this, exp.Distinct) else node.this
            yield argument, node.key, [argument]
        elif isinstance(node, exp.WithinGroup):
            for term in node.expression.expressions:
                inner = term.this if isinstance(term, exp.Ordered) else term
                yield inner, "WITHIN GROUP", [inner]
        elif isinstance(node, exp.Order) and isinstance(node.this, exp.Expr):
            yield from _ordered(node)
        elif isinstance(node, exp.Select):
            yield from _grouped(node)
            if node.args.get("distinct") is not None and node.args["distinct"].args.get("on") is None:
                yield from _outputs(node, "DISTINCT")
        elif isinstance(node, exp.SetOperation) and node.args.get("distinct"):
            for side in (node.left, node.right):
                for select in [side] if isinstance(side, exp.Select) else side.find_all(exp.Select):
                    yield from _outputs(select, node.key.upper())


def _ordered(order: exp.Order) -> Iterator[tuple[exp.Expr, str, list[exp.Expr]]]:
    """Yield the place of an aggregate that is ordered by its own argument; none if event_id breaks the ties."""
    terms = [term.this if isinstance(term, exp.Ordered) else term for term in order.expressions]
    if any(isinstance(term, exp.Column) and term.name == "event_id" for term in terms):
        return
    argument = order.this.expressions[0] if isinstance(order.this, exp.Distinct) else order.this
    yield argument, "ORDER BY", [argument, *(term for term in terms if term == argument)]


def _grouped(select: exp.Select) -> Iterator[tuple[exp.Expr, str, list[exp.Expr]]]:
    """Yield the places where a SELECT shows the keys of its groups; the grouping itself is by equality."""
    group = select.args.get("group")
    if group is None:
        return
    for term in group.expressions:
        key = term
        if isinstance(term, exp.Literal) and not term.is_string and 1 <= int(term.this) <= len(select.expressions):
            key = select.expressions[int(term.this) - 1].unalias()
        shown = [item for item in select.expressions if isinstance(item, exp.Alias)]
        named = [item.this for item in shown if isinstance(key, exp.Column) and item.alias == key.name]
        having = select.args.get("having")
        wanted = {row_sql(key), *(row_sql(one) for one in named)}
        found = [
            node
            for part in [*select.expressions, *([having.this] if having is not None else [])]
            for node in _outside_aggregates(part)
            if row_sql(node) in wanted
        ]
        yield (named[0] if named else key), "GROUP BY", _outermost(found)


def _outputs(select: exp.Select, what: str) -> Iterator[tuple[exp.Expr, str, list[exp.Expr]]]:
    for item in select.expressions:
        if not item.is_star:
            yield item.unalias(), what, [item.unalias()]


def _outside_aggregates(part: exp.Expr) -> Iterator[exp.Expr]:
    if isinstance(part, exp.AggFunc | exp.Select | exp.Subquery | exp.Window | exp.WithinGroup | exp.Filter):
        return
    if not isinstance(part, exp.Alias | exp.Identifier):
        yield part
    for child in part.iter_expressions():
        yield from _outside_aggregates(child)


def _outermost(nodes: list[exp.Expr]) -> list[exp.Expr]:
    """Return the nodes that lie within no other of them."""
    known = {id(node) for node in nodes}
    return [node for node in nodes if not any(id(above) in known for above in _above(node))]


def _above(node: exp.Expr) -> Iterator[exp.Expr]:
    while node.parent is not None:
        node = node.parent
        yield node
