"""The text of a query as its author wrote it: a build keeps it with its upcasters in the place of `metadata`.

The inverse of `Upcasts.rewritten`, on the tokens of the text: what that makes is a CASE in parentheses with calls of
`no_upcast`, and ends with the column that it stands for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlglot
from sqlglot import Token, TokenType

from refold.model.projection.plan import NO_UPCAST
from refold.model.projection.sqlglot_compat import replaced
from refold.model.projection.upcast import COLUMN


@dataclass(frozen=True, slots=True)
class Written:
    """What the author of a definition wrote, and what refold has added.

    Args:
        text: the text of the file.
        actions: the actions whose upcasters are part of the definition, sorted.
    """

    text: str
    actions: tuple[str, ...]


def without_upcasters(text: str) -> Written:
    """Return the text of a definition without the upcasters in it, and whose these are.

    Args:
        text: the definition as a build has it; also the code of a transform, which has no upcasters in it.
    """
    if f"{NO_UPCAST}(" not in text:
        return Written(text, ())
    try:
        tokens = sqlglot.tokenize(text, read="postgres")
    except sqlglot.errors.TokenError:
        return Written(text, ())
    places: list[tuple[int, int, str]] = []
    actions: set[str] = set()
    at = 0
    while at < len(tokens):
        end = _end(tokens, at)
        column = None if end is None else _column(tokens, at, end)
        if end is None or column is None:
            at += 1
            continue
        inside = tokens[at : end + 1]
        actions |= {
            value.text
            for name, equals, value in zip(inside, inside[1:], inside[2:], strict=False)
            if (name.text, equals.token_type, value.token_type) == ("action", TokenType.EQ, TokenType.STRING)
        }
        after = [one.text.lower() for one in tokens[end + 1 : end + 3]]
        behind = end + 2 if after == ["as", COLUMN] else end
        places.append((tokens[at].start, tokens[behind].end + 1, text[column.start : tokens[end - 2].end + 1]))
        at = behind + 1
    return Written(replaced(text, places), tuple(sorted(actions)))


def _end(tokens: Sequence[Token], at: int) -> int | None:
    """Return the place of the parenthesis that closes a CASE in parentheses; None if no such one begins here."""
    kinds = [one.token_type for one in tokens[at : at + 2]]
    if kinds != [TokenType.L_PAREN, TokenType.CASE]:
        return None
    depth = 0
    for place in range(at, len(tokens)):
        depth += (tokens[place].token_type is TokenType.L_PAREN) - (tokens[place].token_type is TokenType.R_PAREN)
        if depth == 0:
            return place
    return None


def _column(tokens: Sequence[Token], at: int, end: int) -> Token | None:
    """Return the first word of the column for which a CASE stands; None if it is the author's own."""
    inside = tokens[at:end]
    if tokens[end - 1].token_type is not TokenType.END or tokens[end - 2].text.lower() != COLUMN:
        return None
    if not any(one.text == NO_UPCAST for one in inside):
        return None
    qualified = tokens[end - 3].token_type is TokenType.DOT
    before = tokens[end - 5 if qualified else end - 3]
    if before.token_type is not TokenType.ELSE:
        return None
    return tokens[end - 4 if qualified else end - 2]
