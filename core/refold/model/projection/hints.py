"""Hints for authors whose file cannot be read as a query over a stream."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import sqlglot
from sqlglot import TokenType, exp

from refold.errors import DefinitionError
from refold.model.projection.files import read_text
from refold.suggest import closest

_KEYWORDS = ("SELECT", "FROM", "WHERE", "GROUP", "HAVING", "ORDER")
_NEAR = 0.74
"""Least similarity of a misspelt word to its keyword, from 0 to 1: FORM and FROM have 0.75."""


class Hint(NamedTuple):
    """The remedy for a misspelt keyword, and the line of the file on which it stands."""

    remedy: str
    line: int


def misspelt(source: str) -> Hint | None:
    """Return a hint for a word that resembles a missing keyword; None if there is none."""
    try:
        tokens = sqlglot.tokenize(source, read="postgres")
    except sqlglot.errors.TokenError:
        return None
    present = {token.text.upper() for token in tokens}
    words = {token.text.upper(): token for token in tokens if token.token_type is TokenType.VAR}
    for keyword in _KEYWORDS:
        if keyword in present:
            continue
        close = closest(keyword, words, cutoff=_NEAR)
        if close:
            return Hint(f"Write {keyword} instead of {words[close].text}.", words[close].line)
    return None


def refuse_metrics(path: Path, metrics: Collection[str]) -> None:
    """Refuse a query that reads a metric whose rows are not events.

    Args:
        path: the file of the query.
        metrics: the names of the metrics whose rows are not events.

    Raises:
        DefinitionError: the query reads such a metric; the error has the line, and the view to write instead. Or the
            file cannot be read.
    """
    if path.suffix.lower() != ".sql":
        return
    text = read_text(path)
    try:
        if not any(name in text for name in metrics):
            return
        tree = sqlglot.parse_one(text, read="postgres")
    except sqlglot.errors.SqlglotError:
        return
    inner = {cte.alias for cte in tree.find_all(exp.CTE)}
    for table in tree.find_all(exp.Table):
        if table.name in metrics and table.db in ("", "metrics") and (table.db or table.name not in inner):
            raise DefinitionError(
                f"{table.name} is a metric, but a projection reads events one by one",
                path=path,
                line=table.this.meta.get("line"),
                remedy=f"Read or join it in a view: sql/views/{path.stem}.sql with"
                f" CREATE OR REPLACE VIEW metrics.{path.stem} AS SELECT … FROM metrics.{table.name} ….",
            )


def actions(query: exp.Expr) -> list[str]:
    """Return the texts that a query compares the column `action` with, in the order of the query."""
    found: dict[str, None] = {}
    for node in query.find_all(exp.EQ, exp.In):
        column, *others = [node.this, *([node.expression] if isinstance(node, exp.EQ) else node.expressions)]
        if isinstance(column, exp.Literal) and others:
            column, others = others[0], [column]
        if isinstance(column, exp.Column) and column.name.lower() == "action":
            found |= dict.fromkeys(str(one.this) for one in others if isinstance(one, exp.Literal) and one.is_string)
    return list(found)


def actions_of(source: str) -> list[str]:
    """Return the texts that a query, given as text, compares `action` with; none if sqlglot cannot parse it."""
    try:
        return actions(sqlglot.parse_one(source, read="postgres"))
    except sqlglot.errors.SqlglotError:
        return []
