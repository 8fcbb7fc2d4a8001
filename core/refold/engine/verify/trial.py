"""What a build will run, prepared once: Postgres says at once what it would say to the first page."""

from __future__ import annotations

import re

import psycopg

from refold.errors import BuildError
from refold.model.sql_text import EVERYTHING
from refold.model.upkeep.statements import Statements
from refold.postgres.sqlstate import transient

_PLACEHOLDER = re.compile(r"%%|%\((\w+)\)s")
_REMEDY = (
    "Postgres could read the query itself, so this is a mistake in refold: please report it. Until it is mended, say "
    "the same in other words."
)


class Unkeepable(BuildError):
    """Postgres refuses a statement that keeps a build up to date."""


def refuse_unkeepable(conn: psycopg.Connection, statements: Statements, *, audited: bool = True) -> None:
    """Refuses a build whose statements Postgres cannot read.

    Args:
        conn: the caller's transaction, in which the build's tables stand.
        statements: the build's SQL.
        audited: also what audits and heals it; not for a transform, whose expectation is a table of Python's.

    Raises:
        Unkeepable: with what Postgres says.
    """
    texts = [statements.page, statements.backlog, statements.checksums]
    if audited:
        for relation in statements.relations:
            texts += [relation.differences(EVERYTHING, EVERYTHING), relation.insert(), relation.delete()]
    try:
        with conn.transaction():
            # In one message: a deploy of many projections is mostly messages.
            trials = (f"PREPARE refold_trial AS\n{_numbered(text)};\nDEALLOCATE refold_trial" for text in texts if text)
            conn.execute(";\n".join(trials).encode(), prepare=False)
    except psycopg.Error as error:
        if transient(error):
            raise
        table = statements.relations[0].table
        raise Unkeepable(
            f"{table} could not be kept up to date: {error.diag.message_primary or error}", remedy=_REMEDY
        ) from error


def _numbered(text: str) -> str:
    """A statement with psycopg's parameters, as PREPARE takes it."""
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return "%"
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    return _PLACEHOLDER.sub(number, text)
