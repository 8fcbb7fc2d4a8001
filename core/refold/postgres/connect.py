"""Connections that act as a role, with all settings that refold's own sessions depend on.

Settings on a role or a database (ALTER ROLE … SET, ALTER DATABASE … SET) are somebody's way to protect a server or to
please a report; none of them may change what a metric is, or end what refold does. So a session of refold's own sets
whatever it depends on, in one round trip.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, get_args

import psycopg
from psycopg.types.json import set_json_loads

from refold.errors import DatabaseError, NotInstalled
from refold.model.event.exact_json import readable
from refold.postgres.proxy import insist_on_settings, look_for_proxy, proxied
from refold.postgres.rows import one_row
from refold.postgres.session import SESSION
from refold.postgres.standby import refusal
from refold.postgres.watchdog import deadline

Role = Literal[
    "refold_owner",
    "refold_producer",
    "refold_worker",
    "refold_analyst",
    "refold_observer",
    "refold_inspector",
    "refold_door",
    "refold_capture",
    "refold_backfill",
]
ROLES: tuple[Role, ...] = get_args(Role)
READERS: tuple[Role, ...] = ("refold_inspector", "refold_worker", "refold_observer")
"""Roles for reading refold's state, best first; a session takes the first that the login may act as. An older login
may be able to act as a worker only."""
INSPECTORS: tuple[Role, ...] = ("refold_worker", "refold_inspector")
"""Roles for reading data that an observer must not see, best first."""
EVIDENCE: tuple[Role, ...] = ("refold_inspector", "refold_worker")
"""Roles for reading the rows of metrics and the events behind them, best first: an inspector writes nothing."""
_WRITERS: tuple[Role, ...] = ("refold_owner", "refold_producer", "refold_worker")

CONNECT_S = 10
"""Time limit for opening a session, seconds."""

_REPLICA = "session_replication_role"

# One statement: a round trip to a server far away costs more than all of it. Behind a proxy that pools transactions
# nothing is set, for the session is somebody else's a moment later. The role comes last: what a superuser alone may
# set is set by the login.
_SETTLE = f"""
SELECT pg_catalog.pg_backend_pid() = %(pid)s,
       CASE WHEN pg_catalog.pg_backend_pid() = %(pid)s THEN (
           SELECT pg_catalog.count(pg_catalog.set_config(s.name, s.value, false))
           FROM (
               SELECT * FROM ROWS FROM (pg_catalog.unnest(%(names)s::text[]), pg_catalog.unnest(%(values)s::text[]))
                   WITH ORDINALITY AS given (name, value, place)
               ORDER BY place
           ) AS s
           WHERE pg_catalog.current_setting(s.name, true) IS DISTINCT FROM s.value
             AND (s.name = 'role' OR pg_catalog.current_setting(s.name, true) IS NOT NULL)
             AND (s.name <> '{_REPLICA}' OR pg_catalog.current_setting('is_superuser') = 'on')
       ) END,
       pg_catalog.current_setting('is_superuser') = 'on',
       pg_catalog.current_setting('{_REPLICA}'),
       -- Asked: a proxy repeats what the server said of itself when the proxy met it, perhaps before a failover.
       pg_catalog.pg_is_in_recovery()
"""


def connect(
    url: str,
    role: Role | Sequence[Role] | None = None,
    *,
    autocommit: bool = False,
    application_name: str = "refold",
    settings: Mapping[str, str] | None = None,
) -> psycopg.Connection:
    """Open a connection that acts as one of refold's roles.

    Behind a proxy that pools transactions refold sets nothing: there the login's sessions must start with refold's
    settings. A producer needs only the privileges of its role.

    Args:
        url: libpq URL or connection string.
        role: role to act as; of several, the first that the login may act as; None is the login role.
        settings: further session settings by name.

    Raises:
        DatabaseError: the login may not act as `role`, or sessions behind a proxy lack settings.
        OnStandby: the role writes, and the server is a standby.
        psycopg.OperationalError: the server cannot be reached.
    """
    conn = psycopg.connect(
        url,
        autocommit=True,
        application_name=application_name,
        # Else what the server makes of texts, and whether they arrive as texts at all, were the role's choice.
        client_encoding="UTF8",
        connect_timeout=CONNECT_S,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=30_000,
    )
    try:
        with deadline(conn, CONNECT_S):
            roles = (role,) if role is None or isinstance(role, str) else role
            recovering = _settle(conn, roles, {**SESSION, **(settings or {})})
            if recovering and role in _WRITERS:
                raise refusal()
    except BaseException:
        conn.close()
        raise
    # What people are shown must not fail because of one value.
    set_json_loads(readable, conn)
    conn.autocommit = autocommit
    return conn


@contextmanager
def connection(
    url: str, role: Role | Sequence[Role] | None = None, *, autocommit: bool = False, application_name: str = "refold"
) -> Iterator[psycopg.Connection]:
    """Open a connection as `connect` does, and close it at the end of the with statement, without a commit."""
    conn = connect(url, role, autocommit=autocommit, application_name=application_name)
    try:
        yield conn
    finally:
        conn.close()


def _settle(conn: psycopg.Connection, roles: Sequence[Role | None], settings: Mapping[str, str]) -> bool:
    """Set the role and settings of a session, unless a proxy pools it; return whether the server is a standby."""
    for role in roles:
        try:
            row = _set(conn, role, settings)
            break
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidParameterValue) as error:
            if role is not roles[-1]:
                continue
            raise _refused(conn, role, error) from error
    own, _, superuser, replication, recovering = row
    if replication != "origin" and not superuser:
        # For a superuser it was set right a moment ago.
        raise DatabaseError(
            f"sessions of {conn.info.user} act as a replica does, so the guards of cursors and builds do not fire",
            remedy=f"As a superuser: ALTER DATABASE … RESET {_REPLICA}; or ALTER ROLE … RESET {_REPLICA};",
        )
    if not own:
        look_for_proxy(conn)
        assert proxied(conn)
        _insist(conn, roles)
    return recovering


def _set(conn: psycopg.Connection, role: Role | None, settings: Mapping[str, str]) -> tuple[bool, int, bool, str, bool]:
    wanted = {_REPLICA: "origin", **settings, "role": role or "none"}
    row: tuple[bool, int, bool, str, bool] = one_row(
        conn,
        _SETTLE.encode(),
        {"pid": conn.info.backend_pid, "names": list(wanted), "values": list(wanted.values())},
        prepare=False,
    )
    return row


def _refused(conn: psycopg.Connection, role: Role | None, error: psycopg.Error) -> Exception:
    """Return the error for a role that the server refused."""
    user = conn.info.user
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return DatabaseError(f"{user} may not act as {role}", remedy=f'GRANT {role} TO "{user}";')
    if role is None or conn.execute("SELECT FROM pg_catalog.pg_roles WHERE rolname = %s", (role,)).rowcount:
        return error
    return NotInstalled(
        f"refold is not installed on this server, or is older than this version: the role {role} does not exist",
        remedy="Run `refold migrate` first.",
    )


def _insist(conn: psycopg.Connection, roles: Sequence[Role | None]) -> None:
    """Raise an error if sessions behind a proxy do not start as one of these roles, with refold's settings."""
    for role in roles:
        try:
            if role == "refold_producer":
                insist_on_settings(conn, {}, role)
            elif role is not None:
                insist_on_settings(conn, SESSION, role)
            return
        except DatabaseError:
            if role is roles[-1]:
                raise
