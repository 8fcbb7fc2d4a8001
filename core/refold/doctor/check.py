"""A check: what was looked at, what was found, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import psycopg
from psycopg import sql

from refold.database import Role

Verdict = Literal["ok", "warn", "fail", "unseen"]
"""`unseen`: this login, or this machine, cannot see it."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's report.

    Args:
        name: what was looked at.
        verdict: how it is.
        found: what was seen.
        remedy: what to do; empty where nothing is to be done.
    """

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """A check before it is done.

    Args:
        name: what it is about, for when it cannot be done at all.
        look: does it, over a connection in autocommit mode that acts as the login role.
        installed: whether it needs refold's schema.
    """

    name: str
    look: Callable[[psycopg.Connection], Sequence[Check]]
    installed: bool = True


def examine(conn: psycopg.Connection, probes: Sequence[Probe], *, installed: bool) -> list[Check]:
    """Does all checks that can be done here; one that this login may not do says so."""
    done: list[Check] = []
    for probe in probes:
        if probe.installed and not installed:
            continue
        try:
            done += probe.look(conn)
        except psycopg.errors.InsufficientPrivilege as error:
            done.append(_unseen(conn, probe.name, error))
    return done


def _unseen(conn: psycopg.Connection, name: str, error: psycopg.Error) -> Check:
    message = error.diag.message_primary or str(error)
    user = conn.info.user
    return Check(name, "unseen", f"{user} may not look: {message}", f'GRANT refold_worker, pg_monitor TO "{user}";')


@contextmanager
def acting_as(conn: psycopg.Connection, role: Role) -> Iterator[None]:
    """A transaction that only reads, as one of refold's roles."""
    with conn.transaction():
        conn.execute("SET TRANSACTION READ ONLY")
        conn.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
        yield


def graded(value: float, warn: float, fail: float) -> Verdict:
    """The verdict on a figure that should be small."""
    return "fail" if value >= fail else "warn" if value >= warn else "ok"
