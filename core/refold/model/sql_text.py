"""Pieces of generated SQL: names (plain where Postgres lets them be, so that it reads well), literals, conditions."""

from __future__ import annotations

import re
from collections.abc import Sequence

EVERYTHING = "true"
"""The condition that every row satisfies."""

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")

# Reserved key words of PostgreSQL 18 (appendix C of its manual), with those that may not name a column.
_RESERVED = frozenset(
    # As text: a list of words takes a page.
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
    """Whether a name needs double quotes."""
    return _PLAIN.fullmatch(name) is None or name in _RESERVED


def ident(name: str) -> str:
    """A name as SQL, quoted where it has to be."""
    return '"' + name.replace('"', '""') + '"' if must_quote(name) else name


def quoted(text: str) -> str:
    """A text as a literal."""
    return "'" + text.replace("'", "''") + "'"


def literal(sql: str) -> str:
    """SQL of the projection inside a statement with parameters: a percent sign stands for itself."""
    return sql.replace("%", "%%")


def indent(sql: str, by: int = 4) -> str:
    """The text, moved to the right."""
    margin = " " * by
    return "\n".join(margin + line if line else line for line in sql.splitlines())


def hash_of(expressions: Sequence[str]) -> str:
    """A 64-bit hash of a key."""
    return f"hash_record_extended(ROW({', '.join(expressions)}), 0)"


def in_order(*conditions: str | None) -> str:
    """Conditions of which each is evaluated only where those before it hold.

    AND promises no order: Postgres starts with what seems cheapest. An expression of the projection must not be
    evaluated for an event that the cursor has not reached, that is left out because just this failed, or that the
    projection's own WHERE keeps from it. NULL, where CASE has no answer, is not true.
    """
    present = [condition for condition in conditions if condition and condition != EVERYTHING]
    if not present:
        return EVERYTHING
    *before, last = present
    for condition in reversed(before):
        last = f"CASE WHEN {condition} THEN {last} END"
    return last


def where(*conditions: str | None) -> str:
    """A WHERE clause on a line of its own, or nothing."""
    present = [condition for condition in conditions if condition and condition != EVERYTHING]
    return "\nWHERE " + "\n  AND ".join(present) if present else ""
