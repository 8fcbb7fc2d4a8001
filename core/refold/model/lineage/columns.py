"""The columns behind each column of a query, found in its text. Pure.

The kinds are those of OpenLineage (ColumnLineageDatasetFacet 1-2-0). What cannot be told is unknown, and never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import sqlglot
from sqlglot import exp
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, build_scope

from refold.model.projection.sqlglot_compat import fold_case, statements

Type = Literal["DIRECT", "INDIRECT"]
Subtype = Literal[
    "IDENTITY",
    "TRANSFORMATION",
    "AGGREGATION",
    "JOIN",
    "GROUP_BY",
    "FILTER",
    "SORT",
    "WINDOW",
    "CONDITIONAL",
]
_DIRECT: tuple[Subtype, ...] = ("IDENTITY", "TRANSFORMATION", "AGGREGATION")
"""Kinds of direct sources, from the weakest; what is made of several has the strongest."""
_AGGREGATES = ("window_funnel", "window_funnel_times")
"""refold's own aggregates, which sqlglot does not know."""


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """A column behind a column.

    Args:
        relation: the relation of the column, as the query's caller names it.
        column: the column.
        type: whether its values are part of the result (DIRECT), or only decide about it (INDIRECT).
        subtype: how.
    """

    relation: str
    column: str
    type: Type
    subtype: Subtype


@dataclass(frozen=True, slots=True)
class ColumnLineage:
    """The columns behind the columns of a query.

    Args:
        columns: for each column of the query its sources; None if they are unknown.
        rows: the columns that decide which rows there are: filters, groups, joins, order.
        observed: for a function, on how many events its sources were observed: a lower bound; None for a query.
        unknown: why nothing can be told, if so.
    """

    columns: Mapping[str, tuple[Source, ...] | None] = field(default_factory=dict)
    rows: tuple[Source, ...] = ()
    observed: int | None = None
    unknown: str | None = None


class Unknown(Exception):
    """The sources of a column, or of a query, cannot be told."""


Relations = Mapping[tuple[str, str], tuple[str, Sequence[str]]]
"""By schema (empty if there is none) and name: how the caller calls a relation, and its columns."""


def column_lineage(sql: str, relations: Relations) -> ColumnLineage:
    """Return the columns behind each column of a query.

    Args:
        sql: one SELECT.
        relations: the relations that it may read.
    """
    try:
        (query,) = statements(sql)
        if not isinstance(query, exp.Query):
            raise Unknown("it is no query")
        fold_case(query)
        return _Query(query, relations).lineage()
    except Unknown as error:
        return ColumnLineage(unknown=str(error))
    except (sqlglot.errors.SqlglotError, ValueError) as error:
        first = str(error).partition("\n")[0]
        return ColumnLineage(unknown=f"the SQL cannot be analysed: {first}")


class _Query:
    def __init__(self, query: exp.Query, relations: Relations) -> None:
        if any(with_.args.get("recursive") for with_ in query.find_all(exp.With)):
            raise Unknown("a recursive query")
        self.known: dict[str, tuple[str, Sequence[str]]] = {}
        inner = {cte.alias for cte in query.find_all(exp.CTE)}
        for at, table in enumerate(list(query.find_all(exp.Table))):
            if not isinstance(table.this, exp.Identifier):
                raise Unknown("a function in FROM")
            if table.name in inner and not table.db:
                continue
            found = relations.get((table.db, table.name))
            if found is None:
                raise Unknown(f"it reads {'.'.join(part.name for part in table.parts)}, which is no metric or stream")
            # One name for each: sqlglot's schema must not depend on how deep names are.
            name = f"relation__{at}"
            self.known[name] = found
            alias = table.alias_or_name
            columns = table.alias_column_names
            if columns:
                raise Unknown("FROM gives other names to columns")
            table.replace(exp.alias_(exp.to_table(name), alias, table=True, quoted=True))
        schema: dict[str, object] = {name: dict.fromkeys(columns, "text") for name, (_, columns) in self.known.items()}
        qualified = qualify(
            query,
            # Names are folded already, and quoted ones must stay.
            dialect="postgres, normalization_strategy=case_sensitive",
            schema=schema,
            validate_qualify_columns=False,
            identify=True,
            isolate_tables=False,
        )
        root = build_scope(qualified)
        if root is None:
            raise Unknown("it is no query")
        self.root = root
        self._columns: dict[int, dict[str, frozenset[Source] | None]] = {}
        self._rows: dict[int, frozenset[Source]] = {}

    def lineage(self) -> ColumnLineage:
        columns = {
            name: None if sources is None else tuple(sorted(sources))
            for name, sources in self.columns(self.root).items()
        }
        return ColumnLineage(columns, tuple(sorted(self.rows(self.root))))

    def columns(self, scope: Scope) -> dict[str, frozenset[Source] | None]:
        """Return the sources of each column of a scope."""
        key = id(scope)
        if key not in self._columns:
            query = scope.expression
            self._columns[key] = (
                self._of_union(scope, query) if isinstance(query, exp.SetOperation) else self._of_select(scope, query)
            )
        return self._columns[key]

    def _of_select(self, scope: Scope, query: exp.Expr) -> dict[str, frozenset[Source] | None]:
        if isinstance(query, exp.Values):
            return self._of_values(query)
        if not isinstance(query, exp.Select):
            raise Unknown(f"{query.key.upper()} in FROM")
        found: dict[str, frozenset[Source] | None] = {}
        for one in query.expressions:
            if isinstance(one, exp.Star) or (isinstance(one, exp.Column) and isinstance(one.this, exp.Star)):
                raise Unknown("a star that cannot be resolved")
            try:
                found[one.alias_or_name] = frozenset(self.of(scope, one.unalias()))
            except Unknown:
                found[one.alias_or_name] = None
        return found

    def _of_values(self, query: exp.Values) -> dict[str, frozenset[Source] | None]:
        if query.find(exp.Column, exp.Query) is not None:
            raise Unknown("VALUES that are not constant")
        return dict.fromkeys(query.alias_column_names, frozenset())

    def _of_union(self, scope: Scope, query: exp.SetOperation) -> dict[str, frozenset[Source] | None]:
        left, right = (self.columns(one) for one in scope.set_operation_scopes)
        found: dict[str, frozenset[Source] | None] = {}
        for (name, one), other in zip(left.items(), right.values(), strict=True):
            if one is None or other is None:
                found[name] = None
            else:
                found[name] = one | (other if isinstance(query, exp.Union) else _only(other, "FILTER"))
        return found

    def rows(self, scope: Scope) -> frozenset[Source]:
        """Return the columns that decide which rows a scope has, and in which order."""
        key = id(scope)
        if key not in self._rows:
            self._rows[key] = frozenset(self._of_rows(scope))
        return self._rows[key]

    def _of_rows(self, scope: Scope) -> Iterator[Source]:
        query = scope.expression
        for inner in scope.set_operation_scopes or ():
            yield from self.rows(inner)
        for _, source in scope.selected_sources.values():
            if isinstance(source, Scope):
                yield from self.rows(source)
        for join in query.args.get("joins") or ():
            if join.args.get("method"):
                raise Unknown(f"a {join.args['method']} join")
            if (on := join.args.get("on")) is not None:
                yield from _only(self.of(scope, on), "JOIN")
            for name in join.args.get("using") or ():
                raise Unknown(f"JOIN USING ({name})")
        for clause, subtype in (("where", "FILTER"), ("having", "FILTER"), ("qualify", "FILTER"), ("order", "SORT")):
            if (node := query.args.get(clause)) is not None:
                nodes = [one.this for one in node.expressions] if clause == "order" else [node.this]
                for one in nodes:
                    yield from _only(self._resolved(scope, one), subtype)  # type: ignore[arg-type]
        group = query.args.get("group")
        terms = list(group.expressions) if group is not None else []
        distinct = query.args.get("distinct")
        if isinstance(distinct, exp.Distinct):
            on = distinct.args.get("on")
            terms += list(on.expressions) if on is not None else [one.unalias() for one in query.expressions]
        for term in terms:
            yield from _only(self._resolved(scope, term), "GROUP_BY")

    def _resolved(self, scope: Scope, node: exp.Expr) -> Iterable[Source]:
        """Return the sources of an expression that may be the name or the number of an output."""
        query = scope.expression
        if isinstance(node, exp.Literal) and not node.is_string:
            at = int(node.this)
            return self.of(scope, query.expressions[at - 1].unalias())
        if isinstance(node, exp.Column) and not node.table:
            for one in query.expressions if isinstance(query, exp.Select) else ():
                if one.alias_or_name == node.name:
                    return self.of(scope, one.unalias())
            if isinstance(query, exp.SetOperation):
                return self.columns(scope).get(node.name) or ()
        return self.of(scope, node)

    def of(self, scope: Scope, node: exp.Expr) -> set[Source]:
        """Return the sources of an expression."""
        found: set[Source] = set()
        for source in self._walk(scope, node, "IDENTITY", None):
            found.add(source)
        # Of one column, only its strongest direct part is told.
        best: dict[tuple[str, str], Source] = {}
        for source in found:
            if source.type == "DIRECT":
                key = source.relation, source.column
                if key not in best or _DIRECT.index(source.subtype) > _DIRECT.index(best[key].subtype):
                    best[key] = source
        return {one for one in found if one.type == "INDIRECT"} | set(best.values())

    def _walk(self, scope: Scope, node: exp.Expr, how: Subtype, only: Subtype | None) -> Iterator[Source]:
        """Yield the sources of a part of an expression.

        Args:
            scope: the scope that the expression belongs to.
            node: the part.
            how: what has been done so far with its value.
            only: why it only decides; None if its value is part of the result.
        """
        if isinstance(node, exp.Column):
            for source in self._of_column(scope, node):
                yield _through(source, how, only)
            return
        if isinstance(node, exp.TableColumn):
            # The whole row, as in to_jsonb(e).
            for source in self._of_whole(scope.sources[node.name]):
                yield _through(source, how, only)
            return
        if isinstance(node, exp.Paren | exp.Alias):
            yield from self._walk(scope, node.this, how, only)
            return
        if isinstance(node, exp.Query | exp.Subquery):
            yield from self._of_subquery(scope, node, how, only)
            return
        step: Subtype = "TRANSFORMATION" if how == "IDENTITY" else how
        if isinstance(node, exp.AggFunc | exp.WithinGroup) or _own_aggregate(node):
            step = "AGGREGATION"
        for part, why in _parts(node):
            yield from self._walk(scope, part, step, only or why)
        if isinstance(node, exp.Window) and (name := node.args.get("alias")) is not None:
            named = [one for one in scope.expression.args.get("windows") or () if one.name == name.name]
            if not named:
                raise Unknown(f"a window named {name.name}")
            for part, why in _parts(named[0]):
                if why is not None:
                    yield from self._walk(scope, part, step, only or why)

    def _of_column(self, scope: Scope, column: exp.Column) -> frozenset[Source]:
        at: Scope | None = scope
        if not column.table:
            raise Unknown(f"{column.name} cannot be resolved")
        while at is not None and column.table not in at.sources:
            at = at.parent
        if at is None:
            raise Unknown(f"{column.table}.{column.name} cannot be resolved")
        source = at.sources[column.table]
        if isinstance(source, exp.Table):
            relation, columns = self.known[source.name]
            if column.name not in columns:
                raise Unknown(f"{relation} has no column {column.name}")
            return frozenset({Source(relation, column.name, "DIRECT", "IDENTITY")})
        inner = self.columns(source)
        if column.name not in inner:
            raise Unknown(f"{column.table} has no column {column.name}")
        sources = inner[column.name]
        if sources is None:
            raise Unknown(f"{column.table}.{column.name} is unknown")
        return sources

    def _of_whole(self, source: object) -> frozenset[Source]:
        if isinstance(source, exp.Table):
            relation, columns = self.known[source.name]
            return frozenset(Source(relation, name, "DIRECT", "TRANSFORMATION") for name in columns)
        assert isinstance(source, Scope)
        parts = self.columns(source).values()
        if None in parts:
            raise Unknown("a row with columns that are unknown")
        return frozenset(_through(one, "TRANSFORMATION", None) for part in parts for one in part or ())

    def _of_subquery(self, scope: Scope, node: exp.Expr, how: Subtype, only: Subtype | None) -> Iterator[Source]:
        query = node.unnest() if isinstance(node, exp.Subquery) else node
        inner = next((one for one in scope.subquery_scopes if one.expression is query), None)
        if inner is None:
            raise Unknown("a subquery that cannot be resolved")
        step: Subtype = "TRANSFORMATION" if how == "IDENTITY" else how
        for sources in self.columns(inner).values():
            if sources is None:
                raise Unknown("a subquery with columns that are unknown")
            for source in sources:
                yield _through(source, step, only)
        yield from self.rows(inner)


def _own_aggregate(node: exp.Expr) -> bool:
    return isinstance(node, exp.Anonymous) and str(node.this).lower() in _AGGREGATES


def _parts(node: exp.Expr) -> Iterator[tuple[exp.Expr, Subtype | None]]:
    """Yield the parts of an expression, each with the reason why it only decides, if so."""
    if isinstance(node, exp.Window):
        yield node.this, None
        for part in node.args.get("partition_by") or ():
            yield part, "WINDOW"
        if (order := node.args.get("order")) is not None:
            for part in order.expressions:
                yield part.this, "WINDOW"
    elif isinstance(node, exp.Filter):
        yield node.this, None
        yield node.expression.this, "CONDITIONAL"
    elif isinstance(node, exp.Case):
        if node.this is not None:
            yield node.this, "CONDITIONAL"
        for branch in node.args.get("ifs") or ():
            yield branch.this, "CONDITIONAL"
            yield branch.args["true"], None
        if (default := node.args.get("default")) is not None:
            yield default, None
    elif isinstance(node, exp.Order):
        if node.this is not None:
            yield node.this, None
        for part in node.expressions:
            yield part.this, "SORT"
    elif isinstance(node, exp.WithinGroup):
        yield node.this, None
        # What an ordered-set aggregate sorts is what it returns.
        for part in node.expression.expressions:
            yield part.this, None
    elif isinstance(node, exp.Exists):
        yield node.this, "CONDITIONAL"
    else:
        for part in node.iter_expressions():
            if not isinstance(part, exp.Identifier | exp.DataType):
                yield part, None


def _through(source: Source, how: Subtype, only: Subtype | None) -> Source:
    """Return a source of a part of an expression as one of the whole."""
    if only is not None:
        return Source(source.relation, source.column, "INDIRECT", only)
    if source.type == "INDIRECT":
        return source
    stronger = max(how, source.subtype, key=_DIRECT.index)
    return Source(source.relation, source.column, "DIRECT", stronger)


def _only(sources: Iterable[Source], why: Subtype) -> frozenset[Source]:
    return frozenset(
        one if one.type == "INDIRECT" else Source(one.relation, one.column, "INDIRECT", why) for one in sources
    )
