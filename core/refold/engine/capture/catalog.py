"""The table of a capture as the catalog has it, and the triggers and functions that stand in the database."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import psycopg

from refold.model.capture.shape import Column, TableShape
from refold.model.capture.statements import SCHEMA
from refold.model.sql_text import ident

_TABLE = """
SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind::text, c.relowner::regrole::text,
       c.relpersistence = 't'
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
"""
_COLUMNS = """
SELECT attname::text, format_type(atttypid, atttypmod), attnotnull
FROM pg_attribute WHERE attrelid = %s::oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_KEYS = """
SELECT i.indisprimary, array_agg(a.attname::text ORDER BY k.place)
FROM pg_index AS i
CROSS JOIN LATERAL unnest(i.indkey[:i.indnkeyatts - 1]) WITH ORDINALITY AS k (attnum, place)
JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indrelid = %s::oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
GROUP BY i.indexrelid, i.indisprimary
"""
_PARTITIONS = """
SELECT n.nspname::text, c.relname::text
FROM pg_partition_tree(%s::oid::regclass) AS t
JOIN pg_class AS c ON c.oid = t.relid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE t.level > 0 AND c.relkind IN ('r', 'p') ORDER BY 1, 2
"""
_PARENT = """
SELECT n.nspname::text, c.relname::text
FROM pg_class AS p, pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE p.oid = %s::oid AND p.relispartition AND c.oid = pg_partition_root(p.oid)
"""


def table_shape(conn: psycopg.Connection, schema: str | None, name: str) -> TableShape | None:
    """Return a table as the catalog describes it; None if there is none.

    Args:
        conn: any connection; the catalog is for everybody to read.
        schema: its schema; None takes the first of `public` and the login's search path that has it.
        name: its name.
    """
    if schema is None:
        found = conn.execute(
            _TABLE.encode() + b" WHERE c.relname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"
            b" AND n.nspname = ANY (current_schemas(false) || 'public'::name)"
            b" ORDER BY array_position(current_schemas(false) || 'public'::name, n.nspname) LIMIT 1",
            (name,),
        ).fetchone()
    else:
        found = conn.execute(
            _TABLE.encode() + b" WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')",
            (schema, name),
        ).fetchone()
    if found is None:
        return None
    oid, in_schema, table, kind, owner, temporary = found
    columns = tuple(Column(*row) for row in conn.execute(_COLUMNS, (oid,)).fetchall())
    keys = conn.execute(_KEYS, (oid,)).fetchall()
    parts = conn.execute(_PARTITIONS, (oid,)).fetchall() if kind == "p" else []
    parent = conn.execute(_PARENT, (oid,)).fetchone()
    return TableShape(
        oid, in_schema, table, kind, owner, columns,
        next((tuple(names) for primary, names in keys if primary), ()),
        tuple(tuple(names) for _, names in keys),
        tuple((one, two) for one, two in parts),
        None if parent is None else (parent[0], parent[1]),
        temporary,
    )  # fmt: skip


def tables_like(conn: psycopg.Connection) -> list[str]:
    """Return the names of all tables that a capture may have meant, with and without their schemas."""
    rows = conn.execute(
        "SELECT n.nspname::text, c.relname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')"
        " AND n.nspname NOT LIKE 'refold%%'",
        (),
    ).fetchall()
    return [text for schema, name in rows for text in (f"{schema}.{name}", name)]


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands in the database for a capture.

    Args:
        functions: MD5 of the body of each function, by its name.
        owners: owners of these functions.
        triggers: whether each trigger fires always, by table (as SQL names it) and name.
    """

    functions: dict[str, str]
    owners: set[str]
    triggers: dict[tuple[str, str], bool]


def standing(conn: psycopg.Connection, functions: Collection[str], triggers: Collection[str]) -> Standing:
    """Return the functions and triggers of these names that stand in the database."""
    made = conn.execute(
        "SELECT p.proname::text, md5(p.prosrc || coalesce(array_to_string(p.proconfig, ','), '') || p.prosecdef::text),"
        " p.proowner::regrole::text"
        " FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace"
        " WHERE n.nspname = %s AND p.proname = ANY (%s)",
        (SCHEMA, list(functions)),
    ).fetchall()
    rows = conn.execute(
        "SELECT n.nspname::text, c.relname::text, t.tgname::text, t.tgenabled = 'A'"
        " FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE t.tgname = ANY (%s) AND NOT t.tgisinternal",
        (list(triggers),),
    ).fetchall()
    return Standing(
        {name: digest for name, digest, _ in made},
        {owner for _, _, owner in made},
        {(f"{ident(schema)}.{ident(table)}", name): always for schema, table, name, always in rows},
    )
