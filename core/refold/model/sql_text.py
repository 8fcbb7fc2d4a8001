"""Pieces of generated SQL: names (quoted only where Postgres requires it), literals and conditions."""

from __future__ import annotations

import re
from collections.abc import Sequence

EVERYTHING = "true"
"""The condition that every row satisfies."""

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")

# Reserved key words of PostgreSQL 18 (appendix C of its manual), and the words that cannot name a column.
_RESERVED = frozenset(
    # One text: a list with a word a line would take a page.
    """
    all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate
    collation column concurrently constraint create cross current_catalog current_date current_role
    current_schema current_time current_timestamp current_user default deferrable desc distinct do else end
    except false fetch for foreign freeze from full grant group having ilike in initially inner intersect into
    is isnull join lateral leading left like limit localtime localtimestamp natural not notnull null offset on
    only or order outer overlaps placing primary references returning right select session_user similar some
    symmetric system_user table tablesample then to trailing true union unique user using variadic verbose
    when where window with between bigint bit boolean char character coalesce dec decimal exists extract float
    greatest grouping inout int integer interval least national nchar none normalize nullif numeric out
    overlay precision real row setof smallint substring time timestamp treat trim values varchar
    """.split()  # noqa: SIM905
)


def must_quote(name: str) -> bool:
    """Return whether a name needs double quotes."""
    return _PLAIN.fullmatch(name) is None or name in _RESERVED


def ident(name: str) -> str:
    """Return a name as SQL, quoted only where Postgres requires it."""
    return '"' + name.replace('"', '""') + '"' if must_quote(name) else name


def quoted(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def literal(sql: str) -> str:
    """Return a projection's SQL for use in a statement with parameters: percent signs are doubled."""
    return sql.replace("%", "%%")


_COMMENT_OR_LITERAL = re.compile(
    r"""
      --[^\n]* | /\*.*?\*/
    | (?P<literal> \b[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*" | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ )
    """,
    re.VERBOSE | re.DOTALL,
)


def indent(sql: str, by: int = 4) -> str:
    """Return SQL with each line indented by a number of spaces; a literal over several lines stays as it is."""
    margin = " " * by
    # NUL stands for the line ends of literals: no SQL has one.
    kept = _COMMENT_OR_LITERAL.sub(lambda one: one[0].replace("\n", "\0") if one["literal"] else one[0], sql)
    return "\n".join(margin + line if line else line for line in kept.removesuffix("\n").split("\n")).replace(
        "\0", "\n"
    )


def hash_of(expressions: Sequence[str], *, seed: int = 0) -> str:
    """Return the SQL of a 64-bit hash of a row of expressions, such as a key.

    Args:
        expressions: the row.
        seed: NULL is hashed as 0, a float's 0 and the numeric NaN as the seed, and the numeric 0 as the seed less 1.
            So a seed from 2 on tells them apart.
    """
    return f"hash_record_extended(ROW({', '.join(expressions)}), {seed})"


def in_order(*conditions: str | None) -> str:
    """Return a condition in which each part is evaluated only where the parts before it hold.

    AND does not guarantee an order: Postgres starts with the condition that seems cheapest. An expression of the
    projection must not be evaluated for an event that the cursor has not reached, for a dead letter on which this
    expression failed, or for an event that the projection's WHERE excludes. Where an earlier part does not hold, CASE
    returns NULL, which is not true.
    """
    present = [condition for condition in conditions if condition and condition != EVERYTHING]
    if not present:
        return EVERYTHING
    *before, last = present
    for condition in reversed(before):
        last = f"CASE WHEN {condition} THEN {last} END"
    return last


def where(*conditions: str | None) -> str:
    """Return a WHERE clause on its own line; an empty text if there is no condition."""
    present = [condition for condition in conditions if condition and condition != EVERYTHING]
    return "\nWHERE " + "\n  AND ".join(present) if present else ""
