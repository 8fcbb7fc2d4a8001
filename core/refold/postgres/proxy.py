"""Proxies between a client and the server, and what one that pools transactions takes away.

Behind such a proxy (pgbouncer, pool_mode = transaction) each transaction may run in another session of the server.
So nothing that a session keeps can be relied on: no prepared statements, no LISTEN, no session locks, and no SET
either. Settings must come from the server: the login role has them, in every session that it gets.
"""

from __future__ import annotations

from collections.abc import Mapping

import psycopg

from refold.errors import DatabaseError
from refold.postgres.rows import one_row

_ON = frozenset({"true", "yes", "1"})
_OFF = frozenset({"false", "no", "0", "0ms", "0s", "0min"})


def look_for_proxy(conn: psycopg.Connection) -> None:
    """Finds out whether a proxy stands in between, and if so gives up prepared statements; they may be another's."""
    # A proxy gives its clients keys of its own.
    row = conn.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
    if row != (conn.info.backend_pid,):
        conn.prepare_threshold = None


def proxied(conn: psycopg.Connection) -> bool:
    """Whether `look_for_proxy` found one."""
    return conn.prepare_threshold is None


def insist_on_settings(conn: psycopg.Connection, settings: Mapping[str, str], role: str) -> None:
    """Refuses a login whose sessions do not have these settings from the start.

    Args:
        conn: behind a proxy that pools transactions.
        settings: by name; those that this server does not know are left out.
        role: which role they must act as. With its privileges alone, if nothing is to be set.

    Raises:
        DatabaseError: with the statements that give it to them.
    """
    if not settings and _inherits(conn, role):
        return
    there = _from_the_start(conn, [*settings, "role"])
    wanted = {name: value for name, value in settings.items() if name in there} | {"role": role}
    lacking = {name: value for name, value in wanted.items() if _plain(there.get(name, "none")) != _plain(value)}
    if lacking:
        login = one_row(conn, "SELECT quote_ident(session_user)")
        statements = " ".join(f"ALTER ROLE {login[0]} SET {name} = {value};" for name, value in _as_sql(lacking))
        who = role.removeprefix("refold_") + "s"
        raise DatabaseError(
            "there is a proxy that pools transactions, and this login's sessions start without refold's settings",
            remedy=f"Connect directly or in session mode; or, for a login that only {who} use: {statements}",
        )

    # These a proxy tracks for each client, and begins with what it has seen of the server: perhaps long ago.
    tracked = {name: conn.info.parameter_status(name) for name in settings}
    stale = [name for name, value in tracked.items() if value is not None and _plain(value) != _plain(settings[name])]
    if stale:
        raise DatabaseError(
            f"there is a proxy that pools transactions, and it gives its clients another {', '.join(stale)} than this"
            " login has by now",
            remedy="Let it forget its sessions: RECONNECT; in the console of pgbouncer, or start it anew.",
        )


def _inherits(conn: psycopg.Connection, role: str) -> bool:
    """Whether the login has a role's privileges without acting as it."""
    return (
        conn.execute(
            "SELECT FROM pg_roles WHERE rolname = %s AND pg_has_role(session_user, oid, 'USAGE')", (role,)
        ).rowcount
        > 0
    )


def _from_the_start(conn: psycopg.Connection, names: list[str]) -> dict[str, str]:
    """What new sessions of this login have in this database, by name."""
    # What pg_settings shows as `setting` is the session's, in which somebody may have SET it; `reset_val` is what it
    # began with, and it may have begun before the login was given its settings.
    rows = conn.execute(
        """
        SELECT wanted.name,
               coalesce((
                   SELECT substr(one, strpos(one, '=') + 1)
                   FROM pg_db_role_setting AS s CROSS JOIN LATERAL unnest(s.setconfig) AS one
                   WHERE s.setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = session_user))
                     AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
                     AND lower(split_part(one, '=', 1)) = lower(wanted.name)
                   -- As the server takes them: role and database, role, database, all.
                   ORDER BY s.setrole = 0, s.setdatabase = 0
                   LIMIT 1
               ), p.reset_val, 'none')
        FROM unnest(%s::text[]) AS wanted (name)
        LEFT JOIN pg_settings AS p ON lower(p.name) = lower(wanted.name)
        WHERE p.name IS NOT NULL OR wanted.name = 'role'
        """,
        (names,),
    ).fetchall()
    return dict(rows)


def _plain(text: str) -> str:
    """A value as the server may have spelt it."""
    bare = "".join(text.lower().replace('"', "").split())
    return "on" if bare in _ON else "off" if bare in _OFF else bare


def _as_sql(settings: Mapping[str, str]) -> list[tuple[str, str]]:
    """Settings as they are written in SQL: search_path is a list, the others are literals."""
    return [(name, value if name == "search_path" else f"'{value}'") for name, value in settings.items()]
