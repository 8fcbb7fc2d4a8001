"""Names in generated SQL: plain where Postgres lets them be, so that the page that runs reads well."""

from __future__ import annotations

import re

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
