"""Who may read a view, and whose it is: kept across making it again."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from refold.errors import BuildError
from refold.postgres.rows import one_row


@dataclass(frozen=True, slots=True)
class Grant:
    """One privilege on a view.

    Args:
        privilege: SELECT and the like.
        grantee: the role; None for PUBLIC.
        column: for a privilege on one column.
        grantable: WITH GRANT OPTION.
    """

    privilege: str
    grantee: str | None
    column: str | None = None
    grantable: bool = False


def grants_on(conn: psycopg.Connection, schema: str, name: str) -> list[Grant]:
    """The privileges on a view, less its owner's."""
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
        -- By its names: to look it up as a regclass takes USAGE on its schema.
        WHERE n.nspname = %s AND c.relname = %s AND a.grantee <> c.relowner
        ORDER BY 3 NULLS FIRST, 1, 2
        """,
        (schema, name),
    ).fetchall()
    # regrole quotes a name that needs it; the identifier is made again where the grant is.
    return [Grant(privilege, _plain(grantee), column, grantable) for privilege, grantee, column, grantable in rows]


def grant(conn: psycopg.Connection, schema: str, name: str, grants: list[Grant]) -> None:
    """Grants privileges on a view, in the caller's transaction; on columns that are gone there are none."""
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
    """Makes a view that was just made again its old owner's, in the caller's transaction.

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
            # The login role may be allowed to do more than what this session acts as.
            conn.execute("SET LOCAL ROLE NONE")
            conn.execute(statement)
            conn.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role[0])))
    except psycopg.errors.InsufficientPrivilege as error:
        raise BuildError(
            f"{schema}.{name} belongs to {owner}, and refold may not give it back: {error.diag.message_primary}",
            remedy=f'GRANT "{owner}" TO {role[0]}; or drop the view and make it again after the switch.',
        ) from error


def _plain(role: str | None) -> str | None:
    return role[1:-1].replace('""', '"') if role is not None and role.startswith('"') else role
