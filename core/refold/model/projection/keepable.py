"""The projection that would keep a query up to date which a view evaluates at each read. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import sqlglot
from sqlglot import exp

from refold.errors import DefinitionError
from refold.model.projection.plan import LOG, Upkeep
from refold.model.projection.query import analyse

_VIEW = re.compile(r"(\bCREATE\s+(?:OR\s+REPLACE\s+)?VIEW\s+[\w.\"]+)\s*(?:WITH\s*\([^)]*\))?", re.IGNORECASE)
"""The head of a view with its options, which sqlglot cannot parse."""
_CUTS = ("order", "limit", "offset")


@dataclass(frozen=True, slots=True)
class Keepable:
    """A SELECT of a view that refold can keep.

    Args:
        stream: the stream that it reads.
        upkeep: how it would be kept.
        sql: the text of the projection.
        whole: whether it is the whole view; otherwise the view would read the metric.
    """

    stream: str
    upkeep: Upkeep
    sql: str
    whole: bool


def streams_read(source: str, streams: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the streams that a view's file reads directly, by the names that projections use for them.

    Args:
        source: the text of the file.
        streams: all streams by name, with the columns of each.
    """
    query = _select(source)
    return () if query is None else tuple(sorted({table.name for table in _tables(query, streams)}))


def keepable(source: str, streams: Mapping[str, tuple[str, ...]]) -> Keepable | None:
    """Return the largest SELECT of a view over one stream that can be a projection; None if there is none.

    Args:
        source: the text of the file.
        streams: the streams that a projection may read, by name, with the columns of each.
    """
    query = _select(source)
    if query is None:
        return None
    for table in _tables(query, streams):
        table.set("db", None)
    # Outermost first.
    for part in query.find_all(exp.Select, bfs=True):
        read = {table.name for table in _tables(part, streams)}
        if len(read) != 1:
            continue
        text, same = _metric(part)
        try:
            plan = analyse("view", text, streams)
        except (DefinitionError, sqlglot.errors.SqlglotError):
            continue
        if not plan.event_grain:
            return Keepable(plan.stream, plan.upkeep, text, whole=part is query and same)
    return None


def _select(source: str) -> exp.Select | None:
    """Return the SELECT of the view that a file makes; None if there is none, or if sqlglot cannot parse it."""
    try:
        for statement in _statements(source):
            if _VIEW.search(statement) is None:
                continue
            made = sqlglot.parse_one(_VIEW.sub(r"\1 ", statement), read="postgres")
            return made.expression if isinstance(made.expression, exp.Select) else None
    except sqlglot.errors.SqlglotError:
        pass
    return None


def _statements(source: str) -> Iterator[str]:
    """Yield the statements of a file as text; sqlglot need not be able to parse each of them."""
    start = 0
    for token in sqlglot.tokenize(source, read="postgres"):
        if token.token_type is sqlglot.TokenType.SEMICOLON:
            yield source[start : token.start]
            start = token.end + 1
    yield source[start:]


def _tables(query: exp.Expr, streams: Mapping[str, tuple[str, ...]]) -> Iterator[exp.Table]:
    """Yield the tables of a query that are streams: the log in `refold`, others in `metrics`, or without a schema."""
    inner = {cte.alias for cte in query.find_all(exp.CTE)}
    for table in query.find_all(exp.Table):
        schemas = ("refold" if table.name == LOG else "metrics", *(() if table.name in inner else ("",)))
        if table.name in streams and table.db in schemas:
            yield table


def _metric(part: exp.Select) -> tuple[str, bool]:
    """Return a SELECT as a projection, and whether it has the same rows.

    A projection has a key and no order: ORDER BY, LIMIT and OFFSET are left out, and a total gets a constant key.
    """
    metric = part.copy()
    same = not any(metric.args.get(clause) for clause in _CUTS)
    for clause in _CUTS:
        metric.set(clause, None)
    metric.set("expressions", [_named(item) for item in metric.expressions])
    distinct, grouped = metric.args.get("distinct"), metric.args.get("group")
    if grouped is None and distinct is not None and distinct.args.get("on") is None:
        metric.set("distinct", None)
        places = [exp.Literal.number(at) for at in range(1, len(metric.expressions) + 1)]
        metric.set("group", exp.Group(expressions=places))
    elif grouped is None and any(item.find(exp.AggFunc) for item in metric.expressions):
        metric.set("expressions", [exp.alias_(exp.Literal.string("all"), "scope"), *metric.expressions])
        metric.set("group", exp.Group(expressions=[exp.column("scope")]))
        same = False
    return metric.sql(dialect="postgres", pretty=True, comments=False, normalize_functions=False), same


def _named(item: exp.Expr) -> exp.Expr:
    """Return a column of a SELECT under the name that Postgres gives it."""
    if isinstance(item, exp.Func) and not item.alias:
        return exp.alias_(item.copy(), item.sql_name().lower())
    return item
