"""The SELECT of a projection: read from its file, and checked for what no upkeep can keep.

What it reads, and which columns it gives, is asked here; `refold.model.projection.query` plans its upkeep.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import sqlglot
from sqlglot import exp

from refold.errors import DefinitionError
from refold.model.projection.hints import misspelt
from refold.model.projection.instead import instead
from refold.model.projection.keys import declares_key
from refold.model.projection.plan import LOG, LOG_COLUMNS
from refold.model.projection.sqlglot_compat import (
    flatten_groups,
    fold_case,
    in_words_of,
    row_sql,
    statements,
)
from refold.suggest import did_you_mean

_RESERVED = {"txid", "position", "ordinal"}


class Select:
    """The SELECT of a projection.

    Args:
        name: the projection's name.
        source: the text of its file.
        streams: the streams that it may read, by name, with the columns of each.
        path: the file, for messages; None when the text does not come from a file.

    Raises:
        DefinitionError: the file is no SELECT over one stream; the error has the line and a remedy.
    """

    def __init__(self, name: str, source: str, streams: Mapping[str, tuple[str, ...]], path: Path | None) -> None:
        self.name = name
        self.source = source
        self.streams = streams
        self.path = path
        self.query = self._parse()
        self.stream = self._stream()
        self.columns = streams[self.stream]

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
                line=line_of(found[1]) or self._second_line(),
                remedy="Keep one SELECT here, and make a file for each of the others.",
            )
        query = found[0]
        if not isinstance(query, exp.Query):
            begins = sqlglot.tokenize(self.source, read="postgres")[0]
            raise DefinitionError(
                f"a projection is one SELECT, not {begins.text}",
                path=self.path,
                line=begins.line,
                remedy=instead(begins.text, query),
            )
        if isinstance(query, exp.Subquery):
            raise DefinitionError(
                "a projection is one SELECT, without parentheses around it",
                path=self.path,
                line=line_of(query) or 1,
                remedy="Remove the outer parentheses.",
            )
        if not isinstance(query, exp.Select):
            word = query.key.upper()
            raise DefinitionError(
                f"a projection is one SELECT, not {word}",
                path=self.path,
                line=line_of(query) or 1,
                remedy="Write one SELECT with a wider WHERE. Or make each SELECT a metric, and combine them in a view"
                f" in sql/views/: SELECT … FROM metrics.a {word} SELECT … FROM metrics.b.",
            )
        fold_case(query)
        flatten_groups(query)
        return query

    def _second_line(self) -> int | None:
        """Return the line on which the second statement begins, if the text has one."""
        tokens = sqlglot.tokenize(self.source, read="postgres")
        ends = (at for at, token in enumerate(tokens) if token.token_type is sqlglot.TokenType.SEMICOLON)
        return next((token.line for token in tokens[next(ends, len(tokens)) + 1 :]), None)

    def words(self, node: exp.Expr) -> str:
        """Return a part of the query as its author wrote it."""
        return in_words_of(self.source, node)

    def error(self, message: str, node: exp.Expr | None, remedy: str | None = None) -> DefinitionError:
        return DefinitionError(message, path=self.path, line=line_of(node), remedy=remedy)

    def _stream(self) -> str:
        self._refuse_functions()
        into = self.query.find(exp.Into)
        if into is not None:
            raise self.error(
                f"INTO {self.words(into.this)} makes a table, but a projection only reads",
                into,
                "Remove INTO: the metric has the name of its file.",
            )
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

    def check_form(self) -> None:
        """Refuse a SELECT that cannot be kept as a query over a stream: one that writes, renames or makes totals."""
        writes = self.query.find(exp.Lock, exp.Insert, exp.Update, exp.Delete, exp.Merge)
        if writes is not None:
            raise self.error(
                f"{self.words(writes)} locks or changes rows, but a projection only reads",
                writes,
                f"Remove {'it' if isinstance(writes, exp.Lock) else 'it, and read events instead'}.",
            )
        for table in self.query.find_all(exp.Table):
            if table.alias_column_names:
                raise self.error(
                    f"{self.words(table)} gives other names to columns", table, "Use the stream's own column names."
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
                raise self.error(
                    "GROUP BY names no column",
                    group,
                    "Name the columns. For a single total, group by a constant: SELECT 'all' AS scope, … GROUP BY"
                    " scope.",
                )

    def unknown_columns(self) -> Iterator[DefinitionError]:
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

    def outputs(self) -> list[tuple[str, exp.Expr, str | None]]:
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

    def is_simple(self) -> bool:
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

    def aggregates(self) -> bool:
        return self.query.find(exp.AggFunc) is not None

    def texts(self) -> set[str]:
        """Return the columns of the log whose equal values are identical, without names that the query reuses."""
        if self.stream != LOG:
            return set()
        given = {
            alias.alias
            for alias in self.query.find_all(exp.Alias)
            if not (isinstance(alias.this, exp.Column) and alias.this.name == alias.alias)
        }
        return set(LOG_COLUMNS) - {"metadata"} - given

    def where(self) -> str | None:
        where = self.query.args.get("where")
        return None if where is None else row_sql(where.this)

    def reads(self) -> tuple[str, ...]:
        used = {column.name for column in self.query.find_all(exp.Column)}
        # sqlglot reads the last argument of date_bin as a unit, although it may be a column.
        used |= {word.name.lower() for word in self.query.find_all(exp.Var)}
        # * and alias.*, but not the star of count(*).
        if any(isinstance(star.parent, exp.Select | exp.Column) for star in self.query.find_all(exp.Star)):
            used |= set(self.columns)
        return tuple(column for column in self.columns if column in used)

    def description(self) -> str:
        lines = [text.strip() for text in self.query.comments or []]
        return "\n".join(line for line in lines if not declares_key(f"--{line}"))


def written(query: exp.Expr) -> str:
    return str(query.sql(dialect="postgres", pretty=True, comments=False, normalize_functions=False))


def line_of(node: exp.Expr | None) -> int | None:
    """Return the first line of any part of the node; if none has a line, that of the nearest node around it."""
    while node is not None:
        lines = [part.meta["line"] for part in node.walk() if "line" in part.meta]
        if lines:
            return int(min(lines))
        node = node.parent
    return None
