"""The partial aggregates that a merged projection keeps, and the expressions that make its columns from them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from sqlglot import exp

from refold.errors import DefinitionError
from refold.model.projection.equal_values import plain, plain_argument
from refold.model.projection.plan import Combine, Members, Partial
from refold.model.projection.sqlglot_compat import row_sql
from refold.model.sql_text import must_quote

_MERGEABLE: dict[type[exp.Expr], Combine] = {
    exp.Count: "count",
    exp.Sum: "sum",
    exp.Min: "min",
    exp.Max: "max",
    exp.LogicalAnd: "bool_and",
    exp.LogicalOr: "bool_or",
}

_TOTAL = (
    exp.Column,
    exp.Identifier,
    exp.Literal,
    exp.Boolean,
    exp.Null,
    exp.Paren,
    exp.Coalesce,
    exp.Nullif,
    exp.Case,
    exp.If,
    exp.Connector,
    exp.Not,
    exp.EQ,
    exp.NEQ,
    exp.LT,
    exp.LTE,
    exp.GT,
    exp.GTE,
    exp.Is,
)
"""Expressions over kept columns that cannot fail, whatever the columns hold."""

_TOGETHER = 90
"""Arguments of one call of num_nulls: a function of Postgres takes 100 at most."""


class Unmergeable(Exception):
    """A query that cannot be kept by merging and must be recomputed; `str(error)` names the part that prevents it."""


class Partials:
    """Find the aggregates of the outputs, and rewrite each output as an expression over kept columns.

    Args:
        error: makes the error for a part of the query that is wrong.
        keys: the names of the key's columns, by their expression over a row of the stream.
        texts: the columns of the stream whose equal values are identical.
        words: returns a part of the query as its author wrote it.
    """

    def __init__(
        self,
        error: Callable[[str, exp.Expr], DefinitionError],
        keys: Mapping[str, str],
        texts: Collection[str],
        words: Callable[[exp.Expr], str],
    ) -> None:
        self._error = error
        self._keys = keys
        self._texts = texts
        self._words = words
        self.partials: list[Partial] = []
        self.members: list[Members] = []
        self._known: dict[str, str] = {}
        self._of_new: dict[str, str] = {}
        self._may_fail: set[str] = set()

    def rewrite(self, output: str, node: exp.Expr) -> str:
        """Return the SQL of an output over the table's columns.

        Args:
            output: the output's name.
            node: its expression over rows of the stream.

        Raises:
            Unmergeable: a part of it cannot be kept by merging.
        """
        whole = exp.Paren(this=node.copy())
        whole = exp.Paren(this=self._walk(output, whole.this, direct=True))
        for column in whole.find_all(exp.Column):
            if column.args.get("kept") is None:
                raise Unmergeable(f"{output} is neither a key nor a mergeable aggregate")
        self._of_new[output] = _of_new(whole.this)
        if not _total(whole.this):
            self._may_fail.add(output)
        return str(whole.this.sql(dialect="postgres", comments=False, normalize_functions=False))

    def may_fail(self, output: str) -> bool:
        """Return whether a rewritten output may fail for some row of the table."""
        return output in self._may_fail

    def evaluated(self, having: str | None) -> str | None:
        """Return a condition over a row named `new` that is never true, and fails where an output or HAVING fails.

        None if nothing can fail. Outputs are not evaluated for rows that HAVING excludes.

        Args:
            having: the name under which HAVING was rewritten; None without HAVING.
        """
        outputs = [sql for name, sql in self._of_new.items() if name != having and name in self._may_fail]
        parts = [
            f"num_nulls({', '.join(outputs[at : at + _TOGETHER])}) < 0" for at in range(0, len(outputs), _TOGETHER)
        ]
        if having is None or not self._may_fail:
            return " OR ".join(parts) or None
        condition = self._of_new[having]
        return f"CASE WHEN {condition} THEN {' OR '.join(parts)} END" if parts else f"num_nulls({condition}) < 0"

    def _walk(self, output: str, node: exp.Expr, *, direct: bool) -> exp.Expr:
        key = self._keys.get(row_sql(node))
        if key is not None:
            return _kept(key)
        if isinstance(node, exp.Filter | exp.AggFunc):
            return self._aggregate(output, node, direct=direct)
        if isinstance(node, exp.Anonymous | exp.Dot | exp.WithinGroup) and node.find(exp.Column) is not None:
            raise Unmergeable(f"{node.sql('postgres', comments=False)} cannot be merged")
        for child in list(node.iter_expressions()):
            fresh = self._walk(output, child, direct=False)
            if fresh is not child:
                child.replace(fresh)
        return node

    def _aggregate(self, output: str, node: exp.Expr, *, direct: bool) -> exp.Expr:
        call = node.this if isinstance(node, exp.Filter) else node
        text = row_sql(node)
        if isinstance(call, exp.Avg) and not isinstance(call.this, exp.Distinct):
            total = _with_filter(node, exp.Sum(this=call.this.copy()))
            counted = _with_filter(node, exp.Count(this=call.this.copy(), big_int=True))
            s = self._keep(f"{output}__sum", row_sql(total), "sum")
            c = self._keep(f"{output}__count", row_sql(counted), "count")
            mean = exp.Paren(
                this=exp.Div(
                    this=exp.cast(_kept(s), exp.DType.DECIMAL),
                    expression=exp.Nullif(this=_kept(c), expression=exp.Literal.number(0)),
                )
            )
            # A mean is a sum divided by its count: it overflows only where the sum has overflowed before.
            mean.set("total", True)
            return mean
        if isinstance(call, exp.Count) and isinstance(call.this, exp.Distinct):
            if len(call.this.expressions) != 1:
                raise Unmergeable(f"{text} counts more than one column")
            name = self._name(output, direct)
            if text in self._known:
                return _kept(self._known[text])
            self._known[text] = name
            condition = row_sql(node.expression.this) if isinstance(node, exp.Filter) else None
            self.partials.append(Partial(name, None, "members"))
            member = plain(row_sql(call.this.expressions[0]), self._texts)
            self.members.append(Members(name, member, condition))
            return _kept(name)
        combine = _MERGEABLE.get(type(call))
        if combine is None or call.find(exp.Distinct, exp.Order) or (isinstance(call, exp.Count) and call.expressions):
            raise Unmergeable(f"{text} cannot be merged")
        if any(inner is not call for inner in call.find_all(exp.AggFunc)):
            raise self._error(f"{self._words(node)} nests aggregates", node)
        if isinstance(call, exp.Min | exp.Max):
            plain_argument(call, self._texts)
            text = row_sql(node)
        return _kept(self._keep(self._name(output, direct), text, combine))

    def _name(self, output: str, direct: bool) -> str:
        return output if direct else f"{output}__{len(self.partials) + 1}"

    def _keep(self, name: str, text: str, combine: Combine) -> str:
        if text not in self._known:
            if any(partial.name == name for partial in self.partials):
                name = f"{name}_{len(self.partials) + 1}"
            self._known[text] = name
            self.partials.append(Partial(name, text, combine))
        return self._known[text]


def _with_filter(node: exp.Expr, call: exp.Expr) -> exp.Expr:
    """Return a call with the FILTER of another node, if that has one."""
    if isinstance(node, exp.Filter):
        return exp.Filter(this=call, expression=node.expression.copy())
    return call


def _total(node: exp.Expr) -> bool:
    if node.args.get("total"):
        return True
    return isinstance(node, _TOTAL) and all(_total(child) for child in node.iter_expressions())


def _of_new(node: exp.Expr) -> str:
    """Return an expression over the table's columns as SQL over a row of the table that is named `new`."""
    whole = exp.Paren(this=node.copy())
    for column in whole.find_all(exp.Column):
        column.set("table", exp.to_identifier("new"))
    return str(whole.this.sql(dialect="postgres", comments=False, normalize_functions=False))


def _kept(name: str) -> exp.Column:
    column = exp.Column(this=exp.Identifier(this=name, quoted=must_quote(name)))
    column.set("kept", True)
    return column
