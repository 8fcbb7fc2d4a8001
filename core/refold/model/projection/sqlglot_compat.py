"""Conversions between a query's text and sqlglot's tree, where sqlglot and Postgres read a spelling differently."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import ClassVar

import sqlglot
from sqlglot import Token, TokenType, exp
from sqlglot.dialects.postgres import Postgres

# sqlglot logs what it cannot parse; refold reports that itself, with file, line and remedy.
logging.getLogger("sqlglot").setLevel(logging.CRITICAL)

_LONGEST = 80
"""Tokens in the longest piece of a text that `in_words_of` tries."""
_ATTEMPTS = 1_000
"""Pieces of a text that `in_words_of` parses at most: they take a quarter of a second."""
_UNITS = frozenset({"YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND"})


class _Postgres(Postgres):
    """sqlglot's dialect of Postgres without lambdas.

    sqlglot reads the argument `metadata -> 'items'` as a lambda with the parameter `metadata`, not as a column.
    """

    class Parser(Postgres.Parser):  # type: ignore[misc,valid-type]
        LAMBDAS: ClassVar = {
            word: made for word, made in Postgres.Parser.LAMBDAS.items() if word is not TokenType.ARROW
        }


def expression(sql: str) -> exp.Expr:
    """Return the tree of one statement or expression.

    Raises:
        sqlglot.errors.SqlglotError: sqlglot cannot parse it.
    """
    return sqlglot.parse_one(sql, read=_Postgres)


def plain_intervals(source: str) -> str:
    """Return a text with every `INTERVAL '…'` written as a cast, on the same line.

    sqlglot reads only the first number and unit of an interval: '1 day 12:00:00' would become a day.

    Raises:
        sqlglot.errors.TokenError: sqlglot cannot split the text into tokens.
    """
    return replaced(source, interval_casts(source))


def interval_casts(source: str) -> list[tuple[int, int, str]]:
    """Return the casts of `plain_intervals`: start and end of what each stands for in the text, and its own text.

    Raises:
        sqlglot.errors.TokenError: sqlglot cannot split the text into tokens.
    """
    tokens = sqlglot.tokenize(source, read="postgres")
    return [
        (word.start, value.end + 1, f"CAST({source[value.start : value.end + 1]} AS INTERVAL)")
        for word, value, behind in zip(tokens, tokens[1:], [*tokens[2:], None], strict=False)
        if word.token_type is TokenType.INTERVAL
        and value.token_type is TokenType.STRING
        and (behind is None or behind.text.upper() not in _UNITS)
    ]


def replaced(text: str, places: Iterable[tuple[int, int, str]]) -> str:
    """Return a text with other text at some places: start and end of each, and what stands there afterwards."""
    for start, end, made in sorted(places, reverse=True):
        text = text[:start] + made + text[end:]
    return text


def statements(source: str) -> list[exp.Expr]:
    """Return the statements of a text as trees; a comment after the last semicolon does not count.

    Raises:
        sqlglot.errors.SqlglotError: sqlglot cannot parse the text.
    """
    parsed = sqlglot.parse(plain_intervals(source), read=_Postgres)
    return [one for one in parsed if one is not None and not isinstance(one, exp.Semicolon)]


def conjuncts(condition: exp.Expr) -> list[exp.Expr]:
    """Return the conditions that all have to be true, without parentheses around them."""
    condition = condition.unnest()
    if isinstance(condition, exp.And):
        return [*conjuncts(condition.this), *conjuncts(condition.expression)]
    return [condition]


def fold_case(query: exp.Expr) -> None:
    """Convert names without quotes to lower case, as Postgres does; in place."""
    for identifier in query.find_all(exp.Identifier):
        if not identifier.args.get("quoted") and identifier.this.isascii():
            identifier.set("this", identifier.this.lower())


def flatten_groups(query: exp.Expr) -> None:
    """Rewrite `GROUP BY (a, b), (c)` as `GROUP BY a, b, c`, in place."""
    for group in query.find_all(exp.Group):
        group.set("expressions", [one for term in group.expressions for one in _flat(term)])


def _flat(term: exp.Expr) -> list[exp.Expr]:
    if isinstance(term, exp.Tuple):
        return [one for part in term.expressions for one in _flat(part)]
    return _flat(term.this) if isinstance(term, exp.Paren) else [term]


def in_words_of(source: str, node: exp.Expr) -> str:
    """Return a part of a query as its author wrote it: the shortest piece of the text that parses to this part.

    sqlglot writes `now()` as CURRENT_TIMESTAMP, and `x::date` as a CAST.

    Args:
        source: the text of the file.
        node: a part of its tree; qualifiers of columns make no difference.

    Returns:
        The piece, on one line. If no piece parses to this part, the piece that has the words of sqlglot's SQL in any
        case; if there is none, that SQL.
    """
    wanted = row_sql(node)
    tokens = sqlglot.tokenize(source, read=_Postgres)
    return _parsed_alike(source, tokens, node, wanted) or _spelt_alike(source, tokens, wanted) or wanted


def _spelt_alike(source: str, tokens: Sequence[Token], wanted: str) -> str | None:
    """Return the first piece with the same tokens, where only the case of words differs; None if there is none.

    Some parts of a query, such as FOR UPDATE, cannot be parsed by themselves.
    """
    words = [_word(token) for token in sqlglot.tokenize(wanted, read=_Postgres)]
    own = [_word(token) for token in tokens]
    for at in range(len(own) - len(words) + 1):
        if words and own[at : at + len(words)] == words:
            return " ".join(source[tokens[at].start : tokens[at + len(words) - 1].end + 1].split())
    return None


def _word(token: Token) -> tuple[TokenType, str]:
    exact = token.token_type in (TokenType.STRING, TokenType.IDENTIFIER)
    return token.token_type, token.text if exact else token.text.upper()


def _parsed_alike(source: str, tokens: Sequence[Token], node: exp.Expr, wanted: str) -> str | None:
    """Return the shortest piece that parses to a part of the query; None if there is none among those tried."""
    names = {part.name.lower() for part in node.find_all(exp.Identifier)}
    attempts = 0
    for length in range(1, min(len(tokens), _LONGEST) + 1):
        for first, last in zip(tokens, tokens[length - 1 :], strict=False):
            piece = source[first.start : last.end + 1]
            if piece.count("(") != piece.count(")") or not all(name in piece.lower() for name in names):
                continue
            attempts += 1
            if attempts > _ATTEMPTS:
                return None
            if _read_again(piece) == wanted:
                return " ".join(piece.split())
    return None


def _read_again(piece: str) -> str | None:
    try:
        tree = expression(plain_intervals(piece))
        fold_case(tree)
        return row_sql(tree)
    except (sqlglot.errors.SqlglotError, ValueError, TypeError, AttributeError):
        # Arbitrary pieces of a text are often not SQL, and sqlglot fails on some of them in other ways.
        return None


def row_sql(node: exp.Expr) -> str:
    """Return the SQL of an expression over one row of the stream, without qualifiers: there is one relation."""
    plain = node.copy()
    for column in list(plain.find_all(exp.Column)):
        column.set("table", None)
    return plain.sql(dialect="postgres", comments=False, normalize_functions=False)
