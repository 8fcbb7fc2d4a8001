"""Between the text of a query and sqlglot's tree: where sqlglot reads a spelling otherwise than Postgres, and back."""

from __future__ import annotations

import sqlglot
from sqlglot import TokenType, exp

_UNITS = frozenset({"YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND"})


def plain_intervals(source: str) -> str:
    """Every `INTERVAL '…'` as a cast, on the same line.

    sqlglot takes the first number and unit for the whole of it: '1 day 12:00:00' would become a day.

    Raises:
        sqlglot.errors.TokenError: the text cannot be cut into tokens.
    """
    tokens = sqlglot.tokenize(source, read="postgres")
    parts: list[str] = []
    at = 0
    for word, value, behind in zip(tokens, tokens[1:], [*tokens[2:], None], strict=False):
        if word.token_type is not TokenType.INTERVAL or value.token_type is not TokenType.STRING:
            continue
        if behind is None or behind.text.upper() not in _UNITS:
            parts += [source[at : word.start], f"CAST({source[value.start : value.end + 1]} AS INTERVAL)"]
            at = value.end + 1
    return "".join([*parts, source[at:]])


def statements(source: str) -> list[exp.Expr]:
    """The statements of a text; a comment behind the last semicolon is none.

    Raises:
        sqlglot.errors.SqlglotError: it is no SQL.
    """
    parsed = sqlglot.parse(plain_intervals(source), read="postgres")
    return [one for one in parsed if one is not None and not isinstance(one, exp.Semicolon)]


def fold_case(query: exp.Expr) -> None:
    """Names without quotes in lower case, as Postgres reads them; in place."""
    for identifier in query.find_all(exp.Identifier):
        if not identifier.args.get("quoted") and identifier.this.isascii():
            identifier.set("this", identifier.this.lower())


def row_sql(node: exp.Expr) -> str:
    """An expression over one row of the stream: without qualifiers, there is one relation only."""
    plain = node.copy()
    for column in list(plain.find_all(exp.Column)):
        column.set("table", None)
    return plain.sql(dialect="postgres", comments=False, normalize_functions=False)
