"""Between the text of a query and sqlglot's tree: where sqlglot reads a spelling otherwise than Postgres, and back."""

from __future__ import annotations

import logging
from typing import ClassVar

import sqlglot
from sqlglot import TokenType, exp
from sqlglot.dialects.postgres import Postgres

# It logs whatever it takes for no query of its own; refold says that itself, with file, line and remedy.
logging.getLogger("sqlglot").setLevel(logging.CRITICAL)

_UNITS = frozenset({"YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND"})


class _Postgres(Postgres):
    """sqlglot's dialect without lambdas: it reads the argument `metadata -> 'items'` as one whose parameter is
    `metadata`, and nobody sees that a column is read."""

    class Parser(Postgres.Parser):
        LAMBDAS: ClassVar = {
            word: made for word, made in Postgres.Parser.LAMBDAS.items() if word is not TokenType.ARROW
        }


def statements(source: str) -> list[exp.Expr]:
    """The statements of a text as trees.

    Raises:
        sqlglot.errors.SqlglotError: it is none that sqlglot can read.
    """
    return [one for one in sqlglot.parse(source, read=_Postgres) if one is not None]


def expression(sql: str) -> exp.Expr:
    """One statement or expression as a tree.

    Raises:
        sqlglot.errors.SqlglotError: it is none that sqlglot can read.
    """
    return sqlglot.parse_one(sql, read=_Postgres)


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
