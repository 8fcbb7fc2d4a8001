"""Privileges and owner of a view, kept when the view is recreated."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from refold.errors import BuildError
from refold.postgres.rows import one_row


@dataclass(frozen=True, slots=True)
class Grant:
    """A privilege on a view, or on a column of it.

    Args:
        privilege: SELECT or another privilege of PostgreSQL.
        grantee: the role; None for PUBLIC.
        column: the column; None for the whole view.
        grantable: whether the grant has the GRANT OPTION.
    """

    privilege: str
    grantee: str | None
    column: str | None = None
    grantable: bool = False


def grants_on(conn: psycopg.Connection, schema: str, name: str) -> list[Grant]:
    """Return the privileges on a view, without those of its owner."""
    rows = conn.execute(
        """
        SELECT a.privilege_type, nullif(a.grantee, 0)::regrole::text, held.column, a.is_grantable
        FROM pg_class AS c
        CROSS JOIN LATERAL (
            SELECT NULL::text AS column, c.relacl AS acl
            UNION ALL
            SELECT attname::text, attacl FROM pg_attribute WHERE attrelid = c.oid AND NOT attisdropped
        ) AS held
        CROSS JOIN LATERAL aclexplode(held.acl) AS a
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        -- Compare names: a cast to regclass needs USAGE on the schema.
        WHERE n.nspname = %s AND c.relname = %s AND a.grantee <> c.relowner
        ORDER BY 3 NULLS FIRST, 1, 2
        """,
        (schema, name),
    ).fetchall()
    # regrole quotes a name where needed; `grant` quotes it again.
    return [Grant(privilege, _plain(grantee), column, grantable) for privilege, grantee, column, grantable in rows]


def grant(conn: psycopg.Connection, schema: str, name: str, grants: list[Grant]) -> None:
    """Grant privileges on a view, in the caller's transaction; pass over columns that no longer exist."""
    columns = {
        column
        for (column,) in conn.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0",
            (sql.Identifier(schema, name).as_string(conn),),
        ).fetchall()
    }
    for one in grants:
        if one.column is not None and one.column not in columns:
            continue
        conn.execute(
            sql.SQL("GRANT {privilege}{column} ON {view} TO {grantee}{option}").format(
                privilege=sql.SQL(one.privilege),
                column=sql.SQL("") if one.column is None else sql.SQL(" ({})").format(sql.Identifier(one.column)),
                view=sql.Identifier(schema, name),
                grantee=sql.SQL("PUBLIC") if one.grantee is None else sql.Identifier(one.grantee),
                option=sql.SQL(" WITH GRANT OPTION" if one.grantable else ""),
            )
        )


def give_back(conn: psycopg.Connection, schema: str, name: str, owner: str) -> None:
    """Give a recreated view back to its earlier owner, in the caller's transaction.

    Raises:
        BuildError: neither the worker's role nor the login may do that.
    """
    statement = sql.SQL("ALTER VIEW {} OWNER TO {}").format(sql.Identifier(schema, name), sql.Identifier(owner))
    try:
        with conn.transaction():
            conn.execute(statement)
        return
    except psycopg.errors.InsufficientPrivilege:
        pass
    role = one_row(conn, "SELECT current_user")
    try:
        with conn.transaction():
            # The login may have more privileges than the role that this session acts as.
            conn.execute("SET LOCAL ROLE NONE")
            conn.execute(statement)
            conn.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role[0])))
    except psycopg.errors.InsufficientPrivilege as error:
        raise BuildError(
            f"{schema}.{name} belongs to {owner}, and refold may not give it back: {error.diag.message_primary}",
            remedy=f'Run GRANT "{owner}" TO {role[0]}; or drop the view and recreate it after the switch.',
        ) from error


def _plain(role: str | None) -> str | None:
    return role[1:-1].replace('""', '"') if role is not None and role.startswith('"') else role
