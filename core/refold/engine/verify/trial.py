"""Trial of a build's statements: PREPARE raises the errors that the first page would raise."""

from __future__ import annotations

import re

import psycopg

from refold.errors import BuildError
from refold.model.projection.plan import NO_UPCAST
from refold.model.sql_text import EVERYTHING
from refold.model.upkeep.statements import Statements
from refold.postgres.sqlstate import transient

_PLACEHOLDER = re.compile(r"%%|%\((\w+)\)s")
_REMEDY = (
    "Postgres accepts the query itself, so this is a bug in refold: please report it. Until it is fixed, write the "
    "query in another way."
)


_UPCASTERS = (
    "Look at the upcasters of the folder events: each must be an expression over metadata that gives jsonb. If they "
    "do, this is a bug in refold: please report it."
)


class Unkeepable(BuildError):
    """Postgres refuses a statement that keeps a build up to date."""


def refuse_unkeepable(conn: psycopg.Connection, statements: Statements, *, audited: bool = True) -> None:
    """Refuse a build whose statements Postgres cannot prepare.

    Args:
        conn: the caller's transaction, in which the build's tables exist.
        statements: the build's SQL.
        audited: whether to try the statements of audits too; not for a transform, whose rows Python computes.

    Raises:
        Unkeepable: Postgres refuses a statement.
    """
    texts = [statements.page, statements.backlog, statements.checksums]
    if audited:
        for relation in statements.relations:
            texts += [relation.differences(EVERYTHING, EVERYTHING), relation.insert(), relation.delete()]
    try:
        with conn.transaction():
            # In one round trip: many projections would otherwise make a deploy slow.
            trials = (f"PREPARE refold_trial AS\n{_numbered(text)};\nDEALLOCATE refold_trial" for text in texts if text)
            conn.execute(";\n".join(trials).encode(), prepare=False)
    except psycopg.Error as error:
        if transient(error):
            raise
        table = statements.relations[0].table
        raise Unkeepable(
            f"{table} cannot be kept up to date: {error.diag.message_primary or error}",
            remedy=_UPCASTERS if any(f"{NO_UPCAST}(" in text for text in texts if text) else _REMEDY,
        ) from error


def _numbered(text: str) -> str:
    """Return a statement with numbered parameters, as PREPARE needs them."""
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return "%"
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    return _PLACEHOLDER.sub(number, text)
