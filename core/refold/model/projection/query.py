"""The upkeep of a projection: which kind keeps its SELECT exactly, and the plan for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sqlglot import exp

from refold.errors import DefinitionError, at_once
from refold.model.projection.determinism import refusals
from refold.model.projection.equal_values import made_plain, plain
from refold.model.projection.funnels import kept_funnels, made_linear
from refold.model.projection.keys import aggregated_elsewhere, check_recompute_key, declared_key, key_remedy, may_fail
from refold.model.projection.partials import Partials, Unmergeable
from refold.model.projection.plan import NO_UPCAST, Column, KeyPart, Plan
from refold.model.projection.select import Select, written
from refold.model.projection.sqlglot_compat import (
    expression,
    row_sql,
)
from refold.model.sql_text import ident
from refold.suggest import did_you_mean

_HAVING = "having__"
"""The name under which HAVING is rewritten, beside the output columns: no column can have this name."""


def analyse(name: str, source: str, streams: Mapping[str, tuple[str, ...]], *, path: Path | None = None) -> Plan:
    """Check a projection's SQL, and return the plan of its upkeep.

    Args:
        name: the projection's name.
        source: the text of its file.
        streams: the streams that it may read, by name, with the columns of each.
        path: the file, for messages; None when the text does not come from a file.

    Raises:
        DefinitionError: the query cannot be kept exactly; the error has the line and a remedy.
    """
    return _Analysis(name, source, streams, path).plan()


class _Analysis(Select):
    def plan(self) -> Plan:
        mistakes = [self.error(one.message, one.node, one.remedy) for one in refusals(self.query, self.words)]
        try:
            self.check_form()
            mistakes += self.unknown_columns()
        except DefinitionError as error:
            mistakes.append(error)
        if mistakes:
            # A mistake that the query repeats on one line is reported once.
            raise at_once(list({str(one): one for one in mistakes}.values()))
        outputs = self.outputs()
        group = self.query.args.get("group")
        if self.is_simple():
            if group is None and not self.aggregates():
                return self._facts(outputs)
            if group is None:
                raise self.error(
                    "an aggregate without GROUP BY has no key",
                    self.query,
                    "Add a GROUP BY. For a single total, group by a constant: SELECT 'all' AS scope, … GROUP BY scope.",
                )
            try:
                return self._merge(outputs)
            except Unmergeable as reason:
                again = self._recompute(outputs, str(reason))
                return self._funnel(outputs, again) or again
        return self._recompute(outputs, "the query has more than one level, a window or a join")

    def _facts(self, outputs: list[tuple[str, exp.Expr, str | None]]) -> Plan:
        reads = self.reads()
        columns = tuple(Column(name, row_sql(node), comment) for name, node, comment in outputs)
        for column in columns:
            if column.name == "event_id" and column.sql != "event_id":
                raise self.error(
                    "event_id must be the id of the event", self.query, "Give this column another name: … AS name."
                )
        return Plan(
            name=self.name,
            upkeep="facts",
            stream=self.stream,
            reads=reads if "event_id" in reads else ("event_id", *reads),
            key=(KeyPart("event_id", "event_id"),),
            columns=columns,
            where=self.where(),
            description=self.description(),
            because="no GROUP BY: a row per event",
        )

    def _group_keys(self, outputs: list[tuple[str, exp.Expr, str | None]]) -> list[KeyPart]:
        """Return GROUP BY as output columns, resolved as Postgres does: input columns before aliases."""
        by_sql = {row_sql(node): name for name, node, _ in outputs}
        by_name = {name: node for name, node, _ in outputs}
        keys: list[KeyPart] = []
        for term in self.query.args["group"].expressions:
            node: exp.Expr = term
            if isinstance(term, exp.Literal) and not term.is_string:
                at = int(term.this)
                if not 1 <= at <= len(outputs):
                    raise self.error(
                        f"GROUP BY {at} is not a column of the SELECT", term, f"Use a number from 1 to {len(outputs)}."
                    )
                node = outputs[at - 1][1]
            elif isinstance(term, exp.Column) and not term.table and term.name not in self.columns:
                if term.name not in by_name:
                    raise self.error(
                        f"GROUP BY {term.name} is not a column", term, f"Columns: {', '.join(self.columns)}."
                    )
                node = by_name[term.name]
            name = by_sql.get(row_sql(node))
            if name is None:
                raise self.error(
                    f"GROUP BY {self.words(term)} is not selected, so rows could not be told apart",
                    term,
                    "Select it too.",
                )
            sql = row_sql(node)
            # Inside ROW(…) a bare literal has no type.
            keys.append(
                KeyPart(name, f"CAST({sql} AS TEXT)" if isinstance(node, exp.Literal) and node.is_string else sql)
            )
        return keys

    def _merge(self, outputs: list[tuple[str, exp.Expr, str | None]]) -> Plan:
        keys = self._group_keys(outputs)
        key_names = {key.name for key in keys}
        kept = Partials(
            self.error,
            {row_sql(node): name for name, node, _ in outputs if name in key_names},
            self.texts(),
            self.words,
        )
        columns = tuple(
            Column(name, name if name in key_names else kept.rewrite(name, node), comment)
            for name, node, comment in outputs
        )
        having = self.query.args.get("having")
        condition = None if having is None else kept.rewrite(_HAVING, having.this)
        if condition is not None:
            # Postgres may evaluate a reader's conditions before the view's HAVING: columns then fail for hidden rows.
            columns = tuple(
                replace(column, sql=f"CASE WHEN {condition} THEN {column.sql} END")
                if kept.may_fail(column.name)
                else column
                for column in columns
            )
        members = tuple(kept.members)
        return Plan(
            name=self.name,
            upkeep="members" if members else "merge",
            stream=self.stream,
            reads=self.reads(),
            key=tuple(replace(key, sql=plain(key.sql, self.texts())) for key in keys),
            columns=columns,
            partials=tuple(kept.partials),
            members=members,
            where=self.where(),
            having=condition,
            evaluated=kept.evaluated(None if condition is None else _HAVING),
            description=self.description(),
            because="count(DISTINCT …) needs the set of values that it has counted"
            if members
            else "every aggregate can be merged",
        )

    def _funnel(self, outputs: list[tuple[str, exp.Expr, str | None]], again: Plan) -> Plan | None:
        """Return the plan for a query of funnels and mergeable aggregates; None for any other query.

        Args:
            outputs: name, expression and comment of each output.
            again: the plan that would recompute its keys.
        """
        funnels = kept_funnels([(name, node) for name, node, _ in outputs])
        if not funnels or not again.lasting or declared_key(self.source) is not None:
            return None
        shown = {name for funnel in funnels for name in (*funnel.level, *funnel.times)}
        keys = {key.name for key in again.key}
        by_sql = {row_sql(node): name for name, node, _ in outputs if name in keys}
        kept = Partials(self.error, by_sql, self.texts(), self.words)
        others = [(name, node) for name, node, _ in outputs if name not in shown | keys]
        try:
            # An output that is an expression over aggregates needs the query itself: recompute.
            plain = all(kept.rewrite(name, node) == ident(name) for name, node in others)
        except Unmergeable:
            return None
        if not plain or kept.members:
            return None
        return replace(
            again,
            upkeep="funnel",
            partials=tuple(kept.partials),
            funnels=funnels,
            where=self.where(),
            because="the state of each funnel is kept, and every other aggregate can be merged",
        )

    def _recompute(self, outputs: list[tuple[str, exp.Expr, str | None]], because: str) -> Plan:
        named = {name: node for name, node, _ in outputs}
        declared = declared_key(self.source)
        if declared is not None:
            for name in declared:
                if name not in named:
                    hint = did_you_mean(name, named)
                    remedy = aggregated_elsewhere(self.query, (name,)) or f"Select {name} too."
                    raise self.error(
                        f"the declared key {name} is not a column of the SELECT.{hint}", self.query, remedy
                    )
            check_recompute_key(self.query, declared, self.columns, self.error)
            keys = [KeyPart(name, name) for name in declared]
            unique = False
        elif self.query.args.get("group") is not None and self.is_simple():
            keys = self._group_keys(outputs)
            unique = True
        else:
            raise self.error(
                f"{because}: its rows must be recomputed from their events by a key, and the file declares none",
                self.query,
                key_remedy(self.query, self.columns, self.error),
            )
        for part in keys:
            cause = may_fail(part.sql)
            if cause is None:
                continue
            if f"{NO_UPCAST}(" in part.sql:
                raise self.error(
                    f"the key reads metadata through an upcaster, which may fail. Rows are recomputed by this key, so"
                    f" {self.stream} has an index on it, and the index would then refuse events",
                    self.query,
                    "Group by a column of an event-grain projection that reads the metadata; or name the actions in"
                    " WHERE, if those with upcasters are not among them.",
                )
            raise self.error(
                f"the key expression {self.words(expression(cause))} may fail or change. Rows are recomputed by"
                f" this key, so {self.stream} has an index on it, and the index would then refuse events",
                self.query,
                "Make it a column of an event-grain projection, and group by that column in a projection that"
                " reads it.",
            )
        query = self.query.copy()
        made_plain(query, self.texts())
        made_linear(query)
        here = "stream__here"
        while here in written(query):
            here += "_"
        for table in list(query.find_all(exp.Table)):
            if table.name == self.stream:
                placeholder = exp.Table(this=exp.to_identifier(here, quoted=False))
                placeholder.set("alias", exp.TableAlias(this=exp.to_identifier(table.alias_or_name)))
                table.replace(placeholder)
        text = written(query)
        return Plan(
            name=self.name,
            upkeep="recompute",
            stream=self.stream,
            reads=self.reads(),
            key=tuple(keys),
            unique=unique,
            lasting=unique and self.query.args.get("having") is None,
            columns=tuple(Column(name, name, comment) for name, _, comment in outputs),
            # Of events that it leaves out, no row is made.
            where=self.where() if self.is_simple() else None,
            query=tuple(text.split(here)),
            description=self.description(),
            because=because,
        )
