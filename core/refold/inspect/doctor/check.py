"""A check with its verdict, finding and remedy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import psycopg
from psycopg import sql

from refold.postgres.connect import READERS, Role
from refold.postgres.standby import on_standby

Verdict = Literal["ok", "warn", "fail", "unseen"]
"""`unseen`: this login or this machine cannot make the check."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's report.

    Args:
        name: name of the check.
        verdict: its result.
        found: finding in words.
        remedy: what to do; empty if nothing.
    """

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """A check that has not run yet.

    Args:
        name: name of the check, for when it cannot run.
        look: runs the check over a connection in autocommit mode that acts as the login role.
        installed: whether it needs refold's schema.
        primary: whether it applies only to a primary.
    """

    name: str
    look: Callable[[psycopg.Connection], Sequence[Check]]
    installed: bool = True
    primary: bool = False


def examine(conn: psycopg.Connection, probes: Sequence[Probe], *, installed: bool) -> list[Check]:
    """Run all checks that apply here; a check that this login may not make gets the verdict `unseen`."""
    done: list[Check] = []
    replica = on_standby(conn)
    for probe in probes:
        if (probe.installed and not installed) or (probe.primary and replica):
            continue
        try:
            done += probe.look(conn)
        except psycopg.errors.InsufficientPrivilege as error:
            done.append(_unseen(conn, probe.name, error))
        except psycopg.errors.InvalidParameterValue as error:
            # A role is missing: the roles of a cluster do not come with a dump of a database.
            done.append(Check(probe.name, "unseen", error.diag.message_primary or str(error), "Run `refold migrate`."))
    return done


WRITES = re.compile(
    r"`refold (?:migrate|deploy|worker|recover|reconcile|scrub|rebuild|promote|drop|deadletters (?:retry|drop)"
    r"|archive (?:claim|run|verify|restore))\b"
    r"|\bdeploy it\b"
)
"""Advice that only a login may follow that changes metrics; a dry run of `deploy` compares as refold_worker, too."""
STATEMENTS = re.compile(r"\b(?:GRANT|ALTER|VACUUM|REINDEX|CREATE|DROP)\b")
"""Advice to run a statement that a standby refuses."""


def addressed(checks: Sequence[Check], user: str, *, works: bool, standby: bool) -> list[Check]:
    """Return checks whose advice says who may follow it, where the reader may not. Pure.

    Args:
        checks: the checks.
        user: the login.
        works: whether it may act as refold_worker.
        standby: whether the server is a standby.
    """
    return [replace(one, remedy=_addressed(one.remedy, user, works=works, standby=standby)) for one in checks]


def _addressed(remedy: str, user: str, *, works: bool, standby: bool) -> str:
    writes = WRITES.search(remedy) is not None
    if standby and (writes or STATEMENTS.search(remedy)):
        remedy = f"On the primary: {remedy}"
    if writes and not works:
        by = "the owner of the database" if "`refold migrate`" in remedy else "a login that may act as refold_worker"
        remedy += f" ({user} may not: it is for {by})"
    return remedy


def _unseen(conn: psycopg.Connection, name: str, error: psycopg.Error) -> Check:
    message = error.diag.message_primary or str(error)
    user = conn.info.user
    return Check(name, "unseen", f"{user} may not check: {message}", f'GRANT refold_observer, pg_monitor TO "{user}";')


@contextmanager
def acting_as(conn: psycopg.Connection, role: Role) -> Iterator[None]:
    """Open a read-only transaction that acts as one of refold's roles."""
    with conn.transaction():
        conn.execute("SET TRANSACTION READ ONLY")
        conn.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
        yield


@contextmanager
def looking(conn: psycopg.Connection) -> Iterator[None]:
    """Open a read-only transaction that acts as the first of `READERS` that this login may act as."""
    row = conn.execute(
        """
        SELECT r.rolname::text
        FROM unnest(%s::text[]) WITH ORDINALITY AS wanted (name, place)
        JOIN pg_roles AS r ON r.rolname = wanted.name
        WHERE pg_has_role(session_user, r.oid, %s)
        ORDER BY wanted.place LIMIT 1
        """,
        (list(READERS), member(conn)),
    ).fetchone()
    with acting_as(conn, READERS[-1] if row is None else row[0]):
        yield


def works(conn: psycopg.Connection) -> bool:
    """Return whether this login may act as refold_worker, or is a superuser where that role is missing."""
    row = conn.execute(
        """
        SELECT coalesce(
            (SELECT pg_has_role(session_user, oid, %s) FROM pg_roles WHERE rolname = 'refold_worker'),
            (SELECT rolsuper FROM pg_roles WHERE rolname = session_user)
        )
        """,
        (member(conn),),
    ).fetchone()
    return row == (True,)


def member(conn: psycopg.Connection) -> str:
    """Return the privilege of pg_has_role that allows SET ROLE; from PostgreSQL 16 on, membership is not enough."""
    return "SET" if conn.info.server_version >= 160000 else "MEMBER"


SESSIONS = """
    (backend_type = 'client backend' OR (backend_type IS NULL AND datid IS NOT NULL AND usesysid IS NOT NULL))
"""
"""Of pg_stat_activity: sessions of clients. To a login without pg_read_all_stats the types of others are not shown; the
server's own processes have no database, or no user."""


def graded(value: float, warn: float, fail: float) -> Verdict:
    """Return the verdict on a number that should be small."""
    return "fail" if value >= fail else "warn" if value >= warn else "ok"
