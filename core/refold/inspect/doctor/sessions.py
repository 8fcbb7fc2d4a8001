"""Checks of settings that logins and databases give to sessions, and of publications."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from refold.inspect.doctor.check import Check
from refold.postgres.replica_identity import lacking
from refold.postgres.session import SESSION

# What somebody else's session feels. refold's own sessions set what they depend on.
_PRODUCERS = {
    "default_transaction_read_only": ("on", "producers cannot append"),
    "default_transaction_isolation": ("serializable", "some appends fail with 40001 and must be retried"),
    "session_replication_role": (
        "replica",
        "the log's triggers fire in such sessions, but not those of cursors, builds and your own tables",
    ),
}
_SERIAL = ("serializable", "repeatable read")


def settings(conn: psycopg.Connection) -> list[Check]:
    """Check settings of logins and of this database that affect producers."""
    rows = conn.execute(
        """
        SELECT coalesce('role ' || r.rolname, 'database ' || d.datname, 'all'), setting
        FROM pg_db_role_setting AS s
        LEFT JOIN pg_roles AS r ON r.oid = s.setrole
        LEFT JOIN pg_database AS d ON d.oid = s.setdatabase
        CROSS JOIN LATERAL unnest(s.setconfig) AS setting
        WHERE s.setdatabase = 0 OR d.datname = current_database()
        ORDER BY 1, 2
        """
    ).fetchall()
    return told([(whose, *setting.split("=", 1)) for whose, setting in rows])


def told(found: Sequence[tuple[str, str, str]]) -> list[Check]:
    """Return the verdict on settings: (owner, name, value). Pure."""
    checks = []
    for whose, name, value in found:
        bad, otherwise = _PRODUCERS.get(name, ("", ""))
        if value == bad or (bad in _SERIAL and value in _SERIAL):
            kind, _, of = whose.partition(" ")
            where = f"{kind.upper()} {of}" if of else "ROLE ALL"
            remedy = f"If producers use it: ALTER {where} RESET {name};"
            checks.append(Check("settings of logins", "warn", f"{whose}: {name} = {value}: {otherwise}", remedy))
    harmless = [f"{name} of {whose}" for whose, name, _ in found if name in SESSION]
    if not checks and harmless:
        return [Check("settings of logins", "ok", f"refold's own sessions override: {', '.join(harmless)}")]
    return checks or [Check("settings of logins", "ok", "none affects refold")]


def publications(conn: psycopg.Connection) -> list[Check]:
    """Check whether a publication prevents refold from updating its own rows."""
    names = [str(name) for (name,) in conn.execute("SELECT pubname FROM pg_publication ORDER BY 1").fetchall()]
    return [published(names, [one.name for one in lacking(conn)])]


def published(publications: Sequence[str], faceless: Sequence[str]) -> Check:
    """Return the verdict on publications and on tables without a replica identity. Pure."""
    if not faceless:
        return Check("publications", "ok", f"{len(publications)}; every table has a replica identity")
    tables = ", ".join(faceless[:5]) + (" …" if len(faceless) > 5 else "")
    if publications:
        told = f"{', '.join(publications)}: published rows of {tables} cannot be updated"
        return Check("publications", "fail", told, "Run `refold migrate`: it gives them a replica identity.")
    told = f"none; a publication FOR ALL TABLES would block updates of {tables}"
    return Check("publications", "warn", told, "Run `refold migrate`: it gives them a replica identity.")
