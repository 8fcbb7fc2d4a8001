"""The declared key of a recompute projection: how to read it, and whether the query can be evaluated key by key."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from zoneinfo import available_timezones

from sqlglot import exp

from refold.errors import DefinitionError
from refold.model.projection.sqlglot_compat import conjuncts, expression

_DECLARATION = re.compile(r"^\s*--\s*key\s*:\s*(.+?)\s*(?:--.*)?$", re.MULTILINE | re.IGNORECASE)


def declared_key(source: str) -> tuple[str, ...] | None:
    """Return the columns named in a comment line `-- key: a, b`, or None; text after another `--` is a remark.

    Names are read as in SQL: in lower case, unless they are quoted.
    """
    match = _DECLARATION.search(source)
    return tuple(_name(part.strip()) for part in match[1].split(",")) if match else None


def declares_key(line: str) -> bool:
    """Return whether a line of a query declares its key."""
    return _DECLARATION.match(line) is not None


def _name(written: str) -> str:
    if len(written) > 2 and written[0] == written[-1] == '"':
        return written[1:-1].replace('""', '"')
    return written.lower() if written.isascii() else written


def check_recompute_key(
    query: exp.Select,
    key: tuple[str, ...],
    stream_columns: tuple[str, ...],
    error: Callable[[str, exp.Expr | None, str | None], DefinitionError],
) -> None:
    """Check that the rows of a key depend only on the events of that key.

    This holds when the key is a column of the stream, every level of the query selects it unchanged, and every level
    groups, partitions, de-duplicates and joins by it.

    Args:
        query: the projection's SELECT.
        key: the columns of the declared key.
        stream_columns: the columns of the stream that the query reads.
        error: makes the error from a message, the part of the query that is wrong, and a remedy.

    Raises:
        DefinitionError: the rows depend on other events, or the check cannot prove that they do not.
    """
    for name in key:
        if name not in stream_columns:
            raise error(
                f"the declared key {name} is not a column of the stream",
                query,
                "Declare a column of the stream, and select it unchanged at every level.",
            )
    for select in query.find_all(exp.Select):
        outputs = {item.alias_or_name: item.unalias() for item in select.expressions}
        starred = any(item.is_star for item in select.expressions)
        for name in key:
            node = outputs.get(name)
            if not (starred and node is None) and not (isinstance(node, exp.Column) and node.name == name):
                raise error(
                    f"this level of the query does not select the key {name} unchanged",
                    select,
                    (aggregated_elsewhere(query, (name,)) if select is query else None)
                    or f"Select {name} at every level.",
                )
        group = select.args.get("group")
        if group is not None:
            terms = {term.name for term in group.expressions if isinstance(term, exp.Column)}
            terms |= {
                select.expressions[int(term.this) - 1].alias_or_name
                for term in group.expressions
                if isinstance(term, exp.Literal) and not term.is_string
            }
            _require(key, terms, "GROUP BY", select, error)
        elif any(_own(aggregate) is select for aggregate in select.find_all(exp.AggFunc)):
            raise error(
                "an aggregate without GROUP BY mixes the events of all keys",
                select,
                f"Add GROUP BY {', '.join(key)}.",
            )
        distinct = select.args.get("distinct")
        if distinct is not None and distinct.args.get("on") is not None:
            on_terms = {term.name for term in distinct.args["on"].find_all(exp.Column)}
            _require(key, on_terms, "DISTINCT ON", select, error)
        if _is_condition(select) and not _by_key(select, key):
            raise error(
                "a subquery in a condition mixes the events of all keys",
                select,
                "Compare its key with the outer one: WHERE " + " AND ".join(f"a.{name} = b.{name}" for name in key),
            )
        for window in select.find_all(exp.Window):
            parts = {part.name for part in window.args.get("partition_by") or [] if isinstance(part, exp.Column)}
            _require(key, parts, "PARTITION BY", window, error)
        for join in select.args.get("joins") or []:
            using = {identifier.name for identifier in join.args.get("using") or []}
            on = join.args.get("on")
            if on is not None:
                using |= _equal_columns(on)
            _require(key, using, "the join", join, error)
            for name in key:
                node = outputs.get(name)
                inner = node.table if isinstance(node, exp.Column) else ""
                joined = join.this.alias_or_name
                if (join.side == "LEFT" and inner == joined) or (
                    join.side in ("RIGHT", "FULL") and inner and (join.side == "FULL" or inner != joined)
                ):
                    raise error(
                        f"{node.sql('postgres') if node else name} is NULL where the join finds no row, so rows"
                        " would change their key",
                        join,
                        f"Select {name} from the side of the join that always has a row.",
                    )
    for both in query.find_all(exp.SetOperation):
        left, right = ([part.alias_or_name for part in side.selects] for side in (both.left, both.right))
        for name in key:
            if name in left and (name not in right or left.index(name) != right.index(name)):
                raise error(
                    f"the key {name} is not the same column of both sides of {both.key.upper()}",
                    both,
                    f"Select {name} at the same place in the SELECTs of both sides.",
                )


def key_remedy(
    query: exp.Select,
    stream_columns: tuple[str, ...],
    error: Callable[[str, exp.Expr | None, str | None], DefinitionError],
) -> str:
    """Return what to write so that a query without a declared key can be kept.

    Args:
        query: the projection's SELECT.
        stream_columns: the columns of the stream that the query reads.
        error: makes an error from a message, a part of the query, and a remedy.
    """
    shared = [name for name in _likely_keys(stream_columns) if _selected_everywhere(query, name)]
    wrong: dict[str, DefinitionError] = {}
    for name in shared:
        try:
            check_recompute_key(query, (name,), stream_columns, error)
        except DefinitionError as refused:
            wrong[name] = refused
        else:
            return f"Declare the key in a comment line: -- key: {name}"
    inner = [select for select in query.find_all(exp.Select) if select is not query]
    if inner and query.args.get("group") is not None and all(_passes_rows(select) for select in inner):
        return (
            "Write the query as one level: put the expressions of the inner query in place of their names, and its"
            " WHERE into the outer one."
        )
    elsewhere = aggregated_elsewhere(query, stream_columns)
    if elsewhere is not None:
        return elsewhere
    if shared:
        return f"Declare the key in a comment line, for example: -- key: {shared[0]}. Then: {wrong[shared[0]].remedy}"
    example = _likely_keys(stream_columns)[0]
    return (
        f"Select a column of the stream unchanged at every level, for example {example}, and declare it in a comment"
        f" line: -- key: {example}"
    )


def _likely_keys(columns: tuple[str, ...]) -> list[str]:
    """Return the columns of a stream that may be a key, in the order in which people choose them."""
    unlikely = ("version", "ts", "event_id", "metadata")
    return sorted(columns, key=lambda name: (name != "user_id", name in unlikely))


def _selected_everywhere(query: exp.Select, name: str) -> bool:
    for select in query.find_all(exp.Select):
        outputs = {item.alias_or_name: item.unalias() for item in select.expressions}
        node = outputs.get(name)
        if not (isinstance(node, exp.Column) and node.name == name):
            return False
    return True


def _passes_rows(select: exp.Select) -> bool:
    """Return whether a SELECT gives a row for each row that it reads, or for some of them."""
    beyond = ("group", "distinct", "joins", "laterals", "having", "limit", "offset")
    return (
        not any(select.args.get(part) for part in beyond)
        and not _is_condition(select)
        and select.find(exp.AggFunc, exp.Window) is None
    )


def aggregated_elsewhere(query: exp.Select, names: Collection[str]) -> str | None:
    """Return the remedy for a query that makes a row per key and then aggregates these rows; None for any other.

    Args:
        query: the whole query.
        names: columns that may be the key.
    """
    inner = [select for select in query.find_all(exp.Select) if select is not query]
    if query.args.get("group") is None and not any(_own(one) is query for one in query.find_all(exp.AggFunc)):
        return None
    shown = {item.alias_or_name for item in query.expressions}
    for select in inner:
        group = select.args.get("group")
        kept = {item.alias_or_name for item in select.expressions if isinstance(item.unalias(), exp.Column)}
        grouped = {term.name for term in group.expressions} if group is not None else kept
        numbered = group is not None and any(isinstance(term, exp.Literal) for term in group.expressions)
        for name in names:
            if name in kept - shown and (name in grouped or numbered):
                return (
                    f"Keep one row per {name} here (the inner query), and aggregate these rows in a view in sql/views/."
                )
    return None


def _equal_columns(condition: exp.Expr) -> set[str]:
    """Return the names of columns that a condition requires to be equal in two relations."""
    return {
        part.left.name
        for part in conjuncts(condition)
        if isinstance(part, exp.EQ)
        and isinstance(part.left, exp.Column)
        and isinstance(part.right, exp.Column)
        and part.left.name == part.right.name
        and part.left.table != part.right.table
    }


def _is_condition(select: exp.Select) -> bool:
    """Return whether a SELECT is part of an expression: of a condition, or a single value."""
    above = select.parent
    while isinstance(above, exp.Subquery | exp.SetOperation):
        above = above.parent
    return above is not None and not isinstance(above, exp.From | exp.Join | exp.CTE | exp.Lateral | exp.With)


def _by_key(select: exp.Select, key: tuple[str, ...]) -> bool:
    """Return whether a SELECT in a condition reads only the events of the outer row's key."""
    where = select.args.get("where")
    if where is not None and set(key) <= _equal_columns(where.this):
        return True
    above = select.parent.parent if isinstance(select.parent, exp.Subquery) else select.parent
    # NOT IN is never true when the list holds a NULL, so the NULL of one key would decide for all keys.
    return (
        isinstance(above, exp.In)
        and not isinstance(above.parent, exp.Not)
        and isinstance(above.this, exp.Column)
        and key == (above.this.name,)
    )


def _own(aggregate: exp.Expr) -> exp.Expr | None:
    """Return the SELECT whose groups the aggregate works on; None for a window function."""
    if aggregate.find_ancestor(exp.Window) is not None:
        return None
    return aggregate.find_ancestor(exp.Select)


def _require(
    key: tuple[str, ...],
    present: set[str],
    clause: str,
    node: exp.Expr,
    error: Callable[[str, exp.Expr | None, str | None], DefinitionError],
) -> None:
    for name in key:
        if name not in present:
            raise error(
                f"{clause} lacks the key {name}, so rows would depend on the events of other keys",
                node,
                f"Add {name} to {clause}.",
            )


_TOTAL = (
    exp.Column,
    exp.Identifier,
    exp.Literal,
    exp.Boolean,
    exp.Null,
    exp.Paren,
    exp.Var,
    exp.DataType,
    exp.JSONExtract,
    exp.JSONExtractScalar,
    exp.JSONPath,
    exp.JSONPathPart,
    exp.Coalesce,
    exp.Nullif,
    exp.Lower,
    exp.Upper,
    exp.Trim,
    exp.DPipe,
    exp.Case,
    exp.If,
    exp.Predicate,
    exp.Connector,
    exp.Not,
)
"""Expressions that fail for no event and are the same in every session; comparisons are `Predicate`."""


def may_fail(sql: str) -> str | None:
    """Return the first part of a key's expression that may fail for some event or differ between sessions, or None."""
    for node in expression(sql).walk():
        if isinstance(node, exp.AtTimeZone):
            zone = node.args.get("zone")
            total = isinstance(zone, exp.Literal) and (zone.this in available_timezones())
        elif isinstance(node, exp.TimestampTrunc | exp.DateTrunc | exp.Extract):
            total = not node.args.get("zone")
        elif isinstance(node, exp.Cast):
            inner = node.this.unnest()
            total = (
                isinstance(inner, exp.AtTimeZone | exp.TimestampTrunc | exp.DateTrunc)
                and node.to.this in (exp.DType.DATE, exp.DType.TIMESTAMP, exp.DType.TIME)
            ) or (node.to.this in (exp.DType.TEXT, exp.DType.VARCHAR) and not _named_ts(inner))
        else:
            total = isinstance(node, _TOTAL)
        if not total:
            return str(node.sql("postgres"))
    return None


def _named_ts(node: exp.Expr) -> bool:
    return isinstance(node, exp.Column) and node.name == "ts"
