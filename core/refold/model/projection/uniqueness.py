"""Unique keys of the rows at each level of a query: an ORDER BY that contains such a key has no ties."""

from __future__ import annotations

from sqlglot import exp

_ONE_ROW = (
    exp.AggFunc,
    exp.Window,
    exp.Cast,
    exp.Coalesce,
    exp.Nullif,
    exp.Case,
    exp.If,
    exp.Connector,
    exp.Extract,
    exp.TimestampTrunc,
    exp.DateTrunc,
    exp.Round,
    exp.Abs,
    exp.Greatest,
    exp.Least,
    exp.Lower,
    exp.Upper,
    exp.JSONExtract,
    exp.JSONExtractScalar,
)
"""Functions that return one value. Any other function may return a set, and so make several rows of one."""


def tells_apart(window: exp.Window, order: exp.Expr) -> bool:
    """Return whether the ORDER BY of a window certainly has no ties within a partition.

    Args:
        window: the window.
        order: its ORDER BY.
    """
    select = window.find_ancestor(exp.Select)
    if select is None:
        return False
    terms = [*(window.args.get("partition_by") or []), *(_term(one) for one in order.expressions)]
    if select.args.get("group") is not None:
        # The rows of the window are the groups of its own level.
        groups = _groups(select)
        given = {_text(term) for term in terms}
        return bool(groups) and all(_text(one) in given for one in groups)
    here = relation_of(select)
    own = {"", here.alias_or_name} if here is not None else set()
    names = {term.name for term in terms if isinstance(term, exp.Column) and term.table in own}
    return any(key <= names for key in _keys_below(select))


def _keys_below(select: exp.Select) -> list[frozenset[str]]:
    """Return the unique keys of the relation that a SELECT reads; none if it reads several, or one without a key."""
    below = relation_of(select)
    if isinstance(below, exp.Subquery) and isinstance(below.this, exp.Select):
        return [] if below.alias_column_names else _keys(below.this)
    if isinstance(below, exp.Table) and not below.db:
        found = _cte(select, below.name)
        return [] if found is None else _keys(found)
    return []


def relation_of(select: exp.Select) -> exp.Expr | None:
    """Return the one relation that a SELECT reads; None if it reads several or none."""
    source = select.args.get("from_") or select.args.get("from")
    if source is None or select.args.get("joins") or select.args.get("laterals"):
        return None
    return source.this if isinstance(source.this, exp.Expr) else None


def _cte(node: exp.Expr, name: str) -> exp.Select | None:
    above: exp.Expr | None = node
    within: list[exp.Expr] = []
    while above is not None:
        scope = above.args.get("with_") or above.args.get("with")
        for cte in () if scope is None else scope.expressions:
            if any(cte is one for one in within):
                # A query in WITH sees neither itself nor the queries after it.
                break
            if cte.alias == name:
                plain = isinstance(cte.this, exp.Select) and not cte.args["alias"].args.get("columns")
                return cte.this if plain and not cte.parent.args.get("recursive") else None
        within.append(above)
        above = above.parent
    return None


def _keys(select: exp.Select) -> list[frozenset[str]]:
    """Return the unique keys of a SELECT's rows, as sets of output columns."""
    for item in select.expressions:
        for part in item.find_all(exp.Func):
            if not isinstance(part, _ONE_ROW) and not isinstance(part.parent, exp.Window):
                return []
    if any(item.is_star for item in select.expressions) or select.find(exp.Unnest):
        return []
    outputs = {item.alias_or_name: item.unalias() for item in select.expressions}
    if select.args.get("group") is not None:
        names = {_text(node): name for name, node in outputs.items()}
        shown = [names.get(_text(one)) for one in _groups(select)]
        return [frozenset(name for name in shown if name)] if shown and all(shown) else []
    if select.args.get("distinct") is not None:
        return [] if select.args["distinct"].args.get("on") is not None else [frozenset(outputs)]
    if any(one.find_ancestor(exp.Window) is None for item in select.expressions for one in item.find_all(exp.AggFunc)):
        return []
    passed = {node.name: name for name, node in outputs.items() if isinstance(node, exp.Column)}
    return [frozenset(passed[name] for name in key) for key in _keys_below(select) if key <= passed.keys()]


def _groups(select: exp.Select) -> list[exp.Expr]:
    """Return the expressions of a plain GROUP BY, with numbers and aliases resolved; none if it is not plain."""
    group = select.args["group"]
    if any(group.args.get(kind) for kind in ("rollup", "cube", "grouping_sets", "all")):
        return []
    outputs = {item.alias: item.unalias() for item in select.expressions if isinstance(item, exp.Alias)}
    plain = {term.name for term in group.expressions if isinstance(term, exp.Column)}
    found: list[exp.Expr] = []
    for term in group.expressions:
        if isinstance(term, exp.Literal) and not term.is_string:
            found.append(select.expressions[int(term.this) - 1].unalias())
        elif (
            isinstance(term, exp.Column)
            and not term.table
            and any(column.name not in plain for column in outputs.get(term.name, term).find_all(exp.Column))
        ):
            # The name is an alias: if it were an input column, Postgres would refuse the output of this name, whose
            # columns are not grouped by.
            found.append(outputs.get(term.name, term))
        elif isinstance(term, exp.Tuple | exp.Rollup | exp.Cube | exp.GroupingSets):
            return []
        else:
            found.append(term)
    return found


def _term(node: exp.Expr) -> exp.Expr:
    return node.this if isinstance(node, exp.Ordered) else node


def _text(node: exp.Expr) -> str:
    return str(node.sql(dialect="postgres", comments=False))
