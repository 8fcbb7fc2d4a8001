"""What an author probably meant, where a file cannot be read as a query over a stream."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import sqlglot
from sqlglot import TokenType, exp

from refold.errors import DefinitionError
from refold.suggest import closest

_KEYWORDS = ("SELECT", "FROM", "WHERE", "GROUP", "HAVING", "ORDER")
_NEAR = 0.74
"""How like its keyword a misspelt word is: FORM and FROM are three quarters alike."""


class Hint(NamedTuple):
    """What to write instead, and where."""

    remedy: str
    line: int


def misspelt(source: str) -> Hint | None:
    """A word that stands where a keyword is missing, and looks like it."""
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
            return Hint(f"Write {keyword} for {words[close].text}.", words[close].line)
    return None


def refuse_metrics(path: Path, metrics: Collection[str]) -> None:
    """Refuses a query that reads a metric whose rows are no events.

    Args:
        path: the file.
        metrics: the names of such metrics.

    Raises:
        DefinitionError: with the line, and where to say it instead.
    """
    if path.suffix != ".sql":
        return
    try:
        text = path.read_text(encoding="utf-8")
        if not any(name in text for name in metrics):
            return
        tree = sqlglot.parse_one(text, read="postgres")
    except (sqlglot.errors.SqlglotError, UnicodeDecodeError):
        return
    inner = {cte.alias for cte in tree.find_all(exp.CTE)}
    for table in tree.find_all(exp.Table):
        if table.name in metrics and table.db in ("", "metrics") and (table.db or table.name not in inner):
            raise DefinitionError(
                f"{table.name} is a metric, and a projection reads events, one by one",
                path=path,
                line=table.this.meta.get("line"),
                remedy=f"Read or join it in a view: sql/views/{path.stem}.sql,"
                f" CREATE OR REPLACE VIEW metrics.{path.stem} AS SELECT … FROM metrics.{table.name} ….",
            )


def actions(query: exp.Expr) -> list[str]:
    """The texts that a query compares the column `action` with, in their order."""
    found: dict[str, None] = {}
    for node in query.find_all(exp.EQ, exp.In):
        column, *others = [node.this, *([node.expression] if isinstance(node, exp.EQ) else node.expressions)]
        if isinstance(column, exp.Literal) and others:
            column, others = others[0], [column]
        if isinstance(column, exp.Column) and column.name.lower() == "action":
            found |= dict.fromkeys(str(one.this) for one in others if isinstance(one, exp.Literal) and one.is_string)
    return list(found)


def actions_of(source: str) -> list[str]:
    """The same of the text of a query; none where it cannot be read."""
    try:
        return actions(sqlglot.parse_one(source, read="postgres"))
    except sqlglot.errors.SqlglotError:
        return []
