"""Analyse a projection's SELECT, and choose the cheapest upkeep (incremental view maintenance) that keeps it exact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import sqlglot
from sqlglot import exp

from refold.errors import DefinitionError, at_once
from refold.model.projection.determinism import refusals
from refold.model.projection.equal_values import Choice, made_plain, plain
from refold.model.projection.funnels import kept_funnels, made_linear
from refold.model.projection.hints import misspelt
from refold.model.projection.keys import aggregated_elsewhere, check_recompute_key, declared_key, declares_key, may_fail
from refold.model.projection.partials import Partials, Unmergeable
from refold.model.projection.plan import LOG, LOG_COLUMNS, Column, KeyPart, Plan
from refold.model.projection.sqlglot_compat import (
    expression,
    flatten_groups,
    fold_case,
    in_words_of,
    row_sql,
    statements,
)
from refold.model.sql_text import ident
from refold.suggest import did_you_mean

_RESERVED = {"txid", "position", "ordinal"}
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


@dataclass(frozen=True, slots=True)
class Reading:
    """A query as sqlglot parsed it.

    Args:
        query: its syntax tree.
        texts: the columns whose equal values are identical.
        choices: the places where the query keeps one of several equal values.
        parts: each output by its name, and the conditions under the names WHERE and HAVING.
    """

    query: exp.Select
    texts: frozenset[str]
    choices: tuple[Choice, ...]
    parts: Mapping[str, exp.Expr]

    @property
    def text(self) -> str:
        """Return the query as SQL, generated from its tree."""
        return _written(self.query)

    def plain(self, only: int | None = None) -> str:
        """Return the query as SQL in which choices keep one spelling of equal values.

        Args:
            only: the index of the one choice to rewrite; all of them by default.
        """
        query = self.query.copy()
        made_plain(query, self.texts, only=only)
        return _written(query)

    def line(self, node: exp.Expr | None) -> int | None:
        """Return the line of the file on which a part of the query starts; None if it is unknown."""
        return _line(node)

    def holding(self, word: str) -> exp.Expr | None:
        """Return the first part whose SQL contains a word; None if none does."""
        return next((part for part in self.parts.values() if word in _written(part)), None)


def reading(name: str, source: str, stream: str, columns: tuple[str, ...], path: Path | None) -> Reading:
    """Return a query as refold reads it, so that Postgres can compare its own reading.

    Args:
        name: the projection.
        source: the text of its file.
        stream: the stream that it reads.
        columns: the columns of the stream.
        path: the file, for messages; None when the text does not come from a file.
    """
    analysis = _Analysis(name, source, {stream: columns}, path)
    query = analysis.query
    texts = frozenset(analysis._texts())
    parts: dict[str, exp.Expr] = {item.alias_or_name: item for item in query.expressions}
    for clause in ("where", "having"):
        if query.args.get(clause) is not None:
            parts[clause.upper()] = query.args[clause]
    return Reading(query, texts, tuple(made_plain(query.copy(), texts)), parts)


def _written(query: exp.Expr) -> str:
    return str(query.sql(dialect="postgres", pretty=True, comments=False, normalize_functions=False))


class _Analysis:
    def __init__(self, name: str, source: str, streams: Mapping[str, tuple[str, ...]], path: Path | None) -> None:
        self.name = name
        self.source = source
        self.streams = streams
        self.path = path
        self.query = self._parse()
        self.stream = self._stream()
        self.columns = streams[self.stream]

    def plan(self) -> Plan:
        mistakes = [self.error(one.message, one.node, one.remedy) for one in refusals(self.query, self.words)]
        try:
            self._check_form()
            mistakes += self._unknown_columns()
        except DefinitionError as error:
            mistakes.append(error)
        if mistakes:
            # A mistake that the query repeats on one line is reported once.
            raise at_once(list({str(one): one for one in mistakes}.values()))
        outputs = self._outputs()
        group = self.query.args.get("group")
        if self._simple():
            if group is None and not self._aggregates():
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

    # Reading the file

    def _parse(self) -> exp.Select:
        try:
            found = statements(self.source)
        except sqlglot.errors.ParseError as error:
            first = error.errors[0] if error.errors else {}
            hint = misspelt(self.source)
            raise DefinitionError(
                f"refold cannot read this SQL: {first.get('description', error)}",
                path=self.path,
                line=first.get("line") if hint is None else hint.line,
                # sqlglot does not know some operators of Postgres, such as `@ x`.
                remedy="Check the SQL before this place: a comma, a parenthesis or a keyword may be missing."
                " If psql takes it, write it in another way."
                if hint is None
                else hint.remedy,
            ) from error
        except sqlglot.errors.TokenError as error:
            raise DefinitionError(
                f"refold cannot read this SQL: {error}", path=self.path, remedy="Check for a quote that is not closed."
            ) from error
        if not found:
            raise DefinitionError(
                "the file is empty",
                path=self.path,
                line=1,
                remedy="Write one SELECT … FROM events, or remove the file.",
            )
        if len(found) != 1:
            raise DefinitionError(
                f"a projection is one SELECT; this file has {len(found)} statements",
                path=self.path,
                remedy="Keep one SELECT here, and make a file for each of the others.",
            )
        query = found[0]
        if not isinstance(query, exp.Query):
            begins = sqlglot.tokenize(self.source, read="postgres")[0]
            word = begins.text.upper()
            remedy = None
            if word == "EXPLAIN":
                remedy = "Remove EXPLAIN; `refold explain` shows how a projection is kept."
            elif isinstance(query, exp.Create) and isinstance(query.expression, exp.Query):
                remedy = "Remove everything before SELECT: the metric has the name of its file."
            raise DefinitionError(
                f"a projection is one SELECT, not {word}", path=self.path, line=begins.line, remedy=remedy
            )
        if isinstance(query, exp.Subquery):
            raise DefinitionError("a projection is one SELECT, without parentheses around it", path=self.path, line=1)
        if not isinstance(query, exp.Select):
            raise DefinitionError(
                f"a projection is one SELECT, not {query.key.upper()}", path=self.path, line=_line(query) or 1
            )
        fold_case(query)
        flatten_groups(query)
        return query

    def words(self, node: exp.Expr) -> str:
        """Return a part of the query as its author wrote it."""
        return in_words_of(self.source, node)

    def error(self, message: str, node: exp.Expr | None, remedy: str | None = None) -> DefinitionError:
        return DefinitionError(message, path=self.path, line=_line(node), remedy=remedy)

    def _stream(self) -> str:
        self._refuse_functions()
        inner = {cte.alias for cte in self.query.find_all(exp.CTE)}
        found: dict[str, exp.Table] = {}
        for table in self.query.find_all(exp.Table):
            if table.name in inner and not table.db:
                continue
            if table.db not in ("", "refold") or (table.db and table.name != "events"):
                raise self._not_a_stream(table)
            found[table.name] = table
        if not found:
            raise self.error("the query reads no stream", self.query, "Add FROM events.")
        for name, table in found.items():
            if name not in self.streams:
                if found.keys() & self.streams.keys():
                    raise self._not_a_stream(table)
                hint = did_you_mean(name, self.streams)
                raise self.error(
                    f"there is no stream named {name}.{hint}",
                    table,
                    "Streams: " + ", ".join(sorted(self.streams)) + ".",
                )
        if len(found) > 1:
            raise self.error(
                "a projection reads one stream, but this query reads " + " and ".join(sorted(found)),
                next(iter(found.values())),
                "Join in a view in sql/views/, or make the rows of both in one transform.",
            )
        return next(iter(found))

    def _not_a_stream(self, table: exp.Table) -> DefinitionError:
        name = ".".join(part.name for part in table.parts)
        if table.name in self.streams:
            return self.error(f"{name} is not a stream", table, f"Read {table.name} by its plain name.")
        return self.error(
            f"{name} is not a stream: a projection reads events or an event-grain projection",
            table,
            f"Select the column that joins {name}, and join {name} in a view in sql/views/: … FROM"
            f" metrics.{self.name} JOIN {name} ….",
        )

    def _refuse_functions(self) -> None:
        """Refuse functions in FROM, among them unnest, for which sqlglot has a node of its own."""
        for node in self.query.find_all(exp.Table, exp.Lateral, exp.Unnest):
            call = node if isinstance(node, exp.Unnest) else node.this
            if isinstance(call, exp.Func | exp.Unnest | exp.Dot):
                bare = call.copy()
                bare.set("alias", None)
                raise self.error(
                    f"{self.words(bare)} in FROM makes several rows of one event",
                    node,
                    "Write a transform that returns a list: its rows are a stream, which other projections can read.",
                )

    def _check_form(self) -> None:
        """Refuse a SELECT that cannot be kept as a query over a stream: one that writes, renames or makes totals."""
        writes = self.query.find(exp.Lock, exp.Into, exp.Insert, exp.Update, exp.Delete, exp.Merge)
        if writes is not None:
            raise self.error(f"{writes.sql('postgres')}: a projection only reads", writes, "Remove it.")
        for table in self.query.find_all(exp.Table):
            if table.alias_column_names:
                raise self.error(
                    f"{table.sql('postgres')} gives other names to columns", table, "Use the stream's own column names."
                )
        for cte in self.query.find_all(exp.CTE):
            if "__" in cte.alias:
                # It would hide a query that refold generates under such a name.
                raise self.error(
                    f"a query in WITH cannot be named {cte.alias}", cte, "Use a name without a double underscore."
                )
        for group in self.query.find_all(exp.Group):
            several = group.find(exp.Rollup, exp.Cube, exp.GroupingSets)
            if several is not None:
                word = "GROUPING SETS" if isinstance(several, exp.GroupingSets) else several.key.upper()
                raise self.error(
                    f"{word} puts totals beside their groups, and rows with different keys into one table",
                    several,
                    "Keep the finest groups here, and make the totals in a view in sql/views/: … FROM"
                    f" metrics.{self.name} GROUP BY {word} (…). Distinct counts cannot be added up: make a metric for"
                    " each level.",
                )
            if not any(term.find(exp.Column, exp.Literal) for term in group.expressions):
                raise self.error("GROUP BY names no column", group, "Name the columns.")

    def _unknown_columns(self) -> Iterator[DefinitionError]:
        known = set(self.columns)
        derived = {alias.alias for alias in self.query.find_all(exp.Alias)}
        derived |= {column for cte in self.query.find_all(exp.TableAlias) for column in cte.alias_column_names}
        for column in self.query.find_all(exp.Column):
            name = column.name
            if not name or isinstance(column.this, exp.Star) or name in known or name in derived:
                continue
            hint = did_you_mean(name, sorted(known | derived))
            remedy = f"Columns: {', '.join(self.columns)}."
            if isinstance(column.this, exp.Identifier) and column.this.args.get("quoted"):
                remedy = f"Write text in single quotes: {exp.Literal.string(name).sql('postgres')}. {remedy}"
            yield self.error(f"{self.stream} has no column {name}.{hint}", column, remedy)

    def _outputs(self) -> list[tuple[str, exp.Expr, str | None]]:
        outputs: list[tuple[str, exp.Expr, str | None]] = []
        for item in self.query.expressions:
            if isinstance(item, exp.Star) or (isinstance(item, exp.Column) and isinstance(item.this, exp.Star)):
                outputs += [(name, exp.column(name), None) for name in self.columns]
                continue
            # Not alias_or_name: that calls count(*) "*", and a literal by its value.
            plain = item.this if isinstance(item, exp.Cast) else item
            name = item.alias if isinstance(item, exp.Alias) else plain.name if isinstance(plain, exp.Column) else ""
            if not name:
                raise self.error(f"{self.words(item)} has no name", item, "Name the column: … AS name.")
            comment = " ".join(text.strip() for text in item.comments or []) or None
            outputs.append((name, item.unalias(), comment))
        names = [name for name, _, _ in outputs]
        for name in names:
            if names.count(name) > 1:
                raise self.error(f"two columns are named {name}", self.query, "Give each its own name.")
            if name in _RESERVED or "__" in name or "%" in name or len(name.encode()) > 50:
                raise self.error(
                    f"a column cannot be named {name}",
                    self.query,
                    "Use a name of at most 50 bytes with no double underscore and no percent sign, and not "
                    + ", ".join(sorted(_RESERVED))
                    + ".",
                )
        return outputs

    # The kinds

    def _simple(self) -> bool:
        """Return whether the query has one level: no WITH, subquery, window, set operation, join or DISTINCT."""
        query = self.query
        return not (
            query.args.get("with_")
            or query.args.get("joins")
            or query.args.get("laterals")
            or query.args.get("distinct")
            or query.args.get("qualify")
            or len(list(query.find_all(exp.Select))) > 1
            or query.find(exp.Window)
            or query.find(exp.Subquery)
            or any(
                group.args.get(kind)
                for group in query.find_all(exp.Group)
                for kind in ("rollup", "cube", "grouping_sets")
            )
        )

    def _aggregates(self) -> bool:
        return self.query.find(exp.AggFunc) is not None

    def _texts(self) -> set[str]:
        """Return the columns of the log whose equal values are identical, without names that the query reuses."""
        if self.stream != LOG:
            return set()
        given = {
            alias.alias
            for alias in self.query.find_all(exp.Alias)
            if not (isinstance(alias.this, exp.Column) and alias.this.name == alias.alias)
        }
        return set(LOG_COLUMNS) - {"metadata"} - given

    def _where(self) -> str | None:
        where = self.query.args.get("where")
        return None if where is None else row_sql(where.this)

    def _reads(self) -> tuple[str, ...]:
        used = {column.name for column in self.query.find_all(exp.Column)}
        # sqlglot reads the last argument of date_bin as a unit, although it may be a column.
        used |= {word.name.lower() for word in self.query.find_all(exp.Var)}
        # * and alias.*, but not the star of count(*).
        if any(isinstance(star.parent, exp.Select | exp.Column) for star in self.query.find_all(exp.Star)):
            used |= set(self.columns)
        return tuple(column for column in self.columns if column in used)

    def _description(self) -> str:
        lines = [text.strip() for text in self.query.comments or []]
        return "\n".join(line for line in lines if not declares_key(f"--{line}"))

    def _facts(self, outputs: list[tuple[str, exp.Expr, str | None]]) -> Plan:
        reads = self._reads()
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
            where=self._where(),
            description=self._description(),
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
            self._texts(),
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
            reads=self._reads(),
            key=tuple(replace(key, sql=plain(key.sql, self._texts())) for key in keys),
            columns=columns,
            partials=tuple(kept.partials),
            members=members,
            where=self._where(),
            having=condition,
            evaluated=kept.evaluated(None if condition is None else _HAVING),
            description=self._description(),
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
        kept = Partials(self.error, by_sql, self._texts(), self.words)
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
            where=self._where(),
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
        elif self.query.args.get("group") is not None and self._simple():
            keys = self._group_keys(outputs)
            unique = True
        else:
            raise self.error(
                f"{because}: its rows must be recomputed from their events by a key, and the file declares none",
                self.query,
                aggregated_elsewhere(self.query, self.columns)
                or "Declare the key in a comment line, for example: -- key: user_id",
            )
        for part in keys:
            cause = may_fail(part.sql)
            if cause is not None:
                raise self.error(
                    f"the key expression {self.words(expression(cause))} may fail or change. Rows are recomputed by"
                    f" this key, so {self.stream} has an index on it, and the index would then refuse events",
                    self.query,
                    "Make it a column of an event-grain projection, and group by that column in a projection that"
                    " reads it.",
                )
        query = self.query.copy()
        made_plain(query, self._texts())
        made_linear(query)
        here = "stream__here"
        while here in _written(query):
            here += "_"
        for table in list(query.find_all(exp.Table)):
            if table.name == self.stream:
                placeholder = exp.Table(this=exp.to_identifier(here, quoted=False))
                placeholder.set("alias", exp.TableAlias(this=exp.to_identifier(table.alias_or_name)))
                table.replace(placeholder)
        text = _written(query)
        return Plan(
            name=self.name,
            upkeep="recompute",
            stream=self.stream,
            reads=self._reads(),
            key=tuple(keys),
            unique=unique,
            lasting=unique and self.query.args.get("having") is None,
            columns=tuple(Column(name, name, comment) for name, _, comment in outputs),
            query=tuple(text.split(here)),
            description=self._description(),
            because=because,
        )


def _line(node: exp.Expr | None) -> int | None:
    """Return the first line of any part of the node; if none has a line, that of the nearest node around it."""
    while node is not None:
        lines = [part.meta["line"] for part in node.walk() if "line" in part.meta]
        if lines:
            return int(min(lines))
        node = node.parent
    return None
