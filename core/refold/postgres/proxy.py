"""Proxies that pool transactions between client and server, and the checks for them.

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
    """Detect a proxy, and turn off prepared statements behind it, because they may belong to another client."""
    # A proxy gives its clients keys of its own.
    row = conn.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
    if row != (conn.info.backend_pid,):
        conn.prepare_threshold = None


def proxied(conn: psycopg.Connection) -> bool:
    """Return whether `look_for_proxy` found a proxy."""
    return conn.prepare_threshold is None


def insist_on_settings(conn: psycopg.Connection, settings: Mapping[str, str], role: str) -> None:
    """Raise an error if the login's sessions do not start with these settings.

    Args:
        conn: connection behind a proxy that pools transactions.
        settings: settings by name; names that this server does not know are ignored.
        role: role that the sessions must act as. Without settings, its privileges are enough.

    Raises:
        DatabaseError: settings are missing; the remedy has the statements that set them.
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
            "a proxy pools transactions, and this login's sessions start without refold's settings",
            remedy=f"Connect directly or in session mode. Or, for a login that only {who} use: {statements}",
        )

    # These a proxy tracks for each client, and begins with what it has seen of the server: perhaps long ago.
    tracked = {name: conn.info.parameter_status(name) for name in settings}
    stale = [name for name, value in tracked.items() if value is not None and _plain(value) != _plain(settings[name])]
    if stale:
        raise DatabaseError(
            f"a proxy pools transactions, and its sessions have older values of {', '.join(stale)} than this login",
            remedy="Renew its sessions: RECONNECT; in the console of pgbouncer, or restart it.",
        )


def _inherits(conn: psycopg.Connection, role: str) -> bool:
    """Return whether the login has a role's privileges without acting as it."""
    return (
        conn.execute(
            "SELECT FROM pg_roles WHERE rolname = %s AND pg_has_role(session_user, oid, 'USAGE')", (role,)
        ).rowcount
        > 0
    )


def _from_the_start(conn: psycopg.Connection, names: list[str]) -> dict[str, str]:
    """Return the settings with which new sessions of this login start in this database."""
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
    """Return a value in a normal form, as the server may spell it differently."""
    bare = "".join(text.lower().replace('"', "").split())
    return "on" if bare in _ON else "off" if bare in _OFF else bare


def _as_sql(settings: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return settings as SQL: search_path is a list, the others are literals."""
    return [(name, value if name == "search_path" else f"'{value}'") for name, value in settings.items()]
