"""Checks of the installation, the cluster, and the privileges of refold's roles."""

from __future__ import annotations

import psycopg

from refold.inspect.doctor.check import Check, looking, member
from refold.postgres.connect import READERS, ROLES
from refold.postgres.standby import Standby, standby
from refold.store.schema.cluster import inspect_cluster
from refold.store.schema.resources import migrations_dir

# role, object, privilege
_TABLES = (
    ("refold_worker", "refold.events", "SELECT"),
    ("refold_worker", "refold.settings", "SELECT"),
    ("refold_worker", "refold.builds", "UPDATE"),
    ("refold_worker", "refold.incidents", "INSERT"),
    ("refold_worker", "refold.duties", "UPDATE"),
    ("refold_analyst", "metrics.freshness", "SELECT"),
    ("refold_observer", "refold.settings", "SELECT"),
    ("refold_inspector", "refold.incidents", "SELECT"),
)
_SCHEMAS = (
    ("refold_producer", "refold", "USAGE"),
    ("refold_worker", "refold_builds", "CREATE"),
    ("refold_worker", "metrics", "CREATE"),
    ("refold_analyst", "metrics", "USAGE"),
)


def is_installed(conn: psycopg.Connection) -> bool:
    """Return whether refold's schema is in this database, from the catalog that every login can read."""
    return bool(
        conn.execute(
            "SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE n.nspname = 'refold' AND c.relname = 'settings'"
        ).rowcount
    )


def installed(conn: psycopg.Connection) -> list[Check]:
    """Check refold's schema and its version."""
    if not is_installed(conn):
        return [Check("schema", "fail", "refold is not installed in this database", "Run `refold migrate`.")]
    newest = max(path.name.split("_")[0] for path in (migrations_dir() / "versions").glob("[0-9]*.py"))
    with looking(conn):
        row = conn.execute("SELECT version_num FROM refold.alembic_version").fetchone()
    return [migrated(None if row is None else row[0], newest)]


def migrated(here: str | None, newest: str) -> Check:
    """Return the verdict on the schema's version. Pure."""
    if here == newest:
        return Check("schema", "ok", f"migration {here}")
    if here is not None and here > newest:
        return Check(
            "schema",
            "fail",
            f"migration {here}; this refold knows {newest}",
            "Use the refold that installed it, or a newer one.",
        )
    return Check("schema", "fail", f"migration {here}; this refold needs {newest}", "Run `refold migrate`.")


def cluster(conn: psycopg.Connection) -> list[Check]:
    """Check that the cursors belong to this cluster and to transactions that it has had."""
    with looking(conn):
        found = inspect_cluster(conn)
    if found is None:
        return [Check("cluster", "fail", "refold's settings are missing", "Run `refold migrate`.")]
    why = found.why()
    if why is None:
        return [Check("cluster", "ok", f"cursors belong to this cluster ({found.actual})")]
    remedy = "Workers refuse to run: `refold recover --dry-run` prints a plan, `refold recover` runs it."
    return [Check("cluster", "fail", why, remedy)]


def roles(conn: psycopg.Connection) -> list[Check]:
    """Check that refold's roles exist, and which of them this login may act as."""
    there = {name for (name,) in conn.execute("SELECT rolname::text FROM pg_roles WHERE rolname ^@ 'refold_'")}
    missing = [role for role in ROLES if role not in there]
    if missing:
        return [Check("roles", "fail", f"missing: {', '.join(missing)}", "Run `refold migrate`.")]
    may = [
        role
        for role in ROLES
        if conn.execute("SELECT pg_has_role(session_user, %s, %s)", (role, member(conn))).fetchone() == (True,)
    ]
    user = conn.info.user
    if set(READERS) & set(may):
        return [Check("roles", "ok", f"{user} may act as {', '.join(may)}")]
    found = f"{user} may act as {', '.join(may) or 'none of them'}, which cannot read refold's tables"
    remedy = f'To check: GRANT refold_observer TO "{user}"; for workers and deploys: GRANT refold_worker TO "{user}";'
    return [Check("roles", "warn", found, remedy)]


def replica(conn: psycopg.Connection) -> list[Check]:
    """Check whether this server is a standby, and how far it is behind."""
    with looking(conn):
        found = standby(conn)
        row = conn.execute("SELECT lag_limit FROM refold.settings").fetchone()
    return [] if found is None else [behind(found, 60 if row is None else row[0])]


def behind(found: Standby, limit: int) -> Check:
    """Return the verdict on a standby. Pure."""
    told = f"this server is a standby, {found.seconds:,.1f} s behind its primary"
    if not found.connected:
        return Check("standby", "warn", f"{told}, and not connected to it", "Its server log says why it gets no WAL.")
    if found.seconds > limit:
        return Check("standby", "warn", told, "Find what delays its replay: pg_stat_activity here, or its disk.")
    return Check("standby", "ok", f"{told}; check workers and blocking transactions on the primary")


def grants(conn: psycopg.Connection) -> list[Check]:
    """Check that the roles have their privileges, and that analysts see every metric."""
    lacking = [
        f"{role} {privilege} on {name}"
        for function, needed in (("has_table_privilege", _TABLES), ("has_schema_privilege", _SCHEMAS))
        for role, name, privilege in needed
        # By OID: a name in a schema that this login may not use cannot be looked up.
        if conn.execute(
            f"SELECT {function}(%s::name, oid, %s) FROM {_CATALOG[function]}".encode(), (role, privilege, name)
        ).fetchone()
        != (True,)
    ]
    hidden = conn.execute(
        "SELECT c.relname::text FROM pg_class AS c WHERE c.relnamespace = 'metrics'::regnamespace AND c.relkind = 'v'"
        " AND NOT has_table_privilege('refold_analyst', c.oid, 'SELECT') ORDER BY 1"
    ).fetchall()
    lacking += [f"refold_analyst SELECT on metrics.{name}" for (name,) in hidden]
    lacking += [
        f"{role} a member of {held}"
        for role, held in (("refold_inspector", "refold_observer"), ("refold_worker", "refold_inspector"))
        if conn.execute("SELECT pg_has_role(%s, %s, 'MEMBER')", (role, held)).fetchone() != (True,)
    ]
    if lacking:
        return [Check("grants", "fail", f"missing: {'; '.join(lacking)}", "Run `refold migrate`, or grant them.")]
    return [Check("grants", "ok", "the roles have their privileges")]


_CATALOG = {
    "has_table_privilege": (
        "(SELECT c.oid, n.nspname || '.' || c.relname AS name FROM pg_class AS c"
        " JOIN pg_namespace AS n ON n.oid = c.relnamespace) AS found WHERE name = %s"
    ),
    "has_schema_privilege": "(SELECT oid, nspname::text AS name FROM pg_namespace) AS found WHERE name = %s",
}
