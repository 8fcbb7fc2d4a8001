"""What to do about a query that Postgres refuses, by its SQLSTATE."""

from __future__ import annotations

import re

import psycopg

from refold.suggest import closest

_CAST = "Cast what comes out of metadata to the type you mean: (metadata ->> 'amount')::numeric."
_REMEDIES: dict[type[psycopg.Error], str] = {
    psycopg.errors.GroupingError: "Add it to GROUP BY, or make one value of it: min(…), max(…), count(…).",
    psycopg.errors.DatatypeMismatch: "Cast both sides to one type.",
    psycopg.errors.CannotCoerce: "Go by way of text: (…)::text::numeric.",
    psycopg.errors.UndefinedObject: "Is the name of the type right? There are text, numeric, bigint, date and boolean.",
    psycopg.errors.AmbiguousColumn: "Say whose column it is: alias.column.",
    psycopg.errors.InvalidTextRepresentation: "Write the value as its type has it.",
    psycopg.errors.InvalidDatetimeFormat: "Write it as 2026-01-31, or 2026-01-31 12:00:00+00.",
}


def remedy_of(conn: psycopg.Connection, error: psycopg.Error) -> str:
    """What the author of a query can do about its being refused.

    Args:
        conn: the caller's transaction, which has been rolled back to before the error.
        error: what Postgres said.
    """
    if isinstance(error, psycopg.errors.UndefinedFunction):
        return _function(conn, error.diag.message_primary or "")
    for kind, remedy in _REMEDIES.items():
        if isinstance(error, kind):
            return remedy
    return error.diag.message_hint or "Try the SELECT by itself: it must run in psql as it stands here."


def _function(conn: psycopg.Connection, message: str) -> str:
    """There is no function, or operator, of that name; or none of those types."""
    called = re.match(r"function (?:\w+\.)?(\w+)\(", message)
    if called is None:
        return _CAST
    names = [
        str(name)
        for (name,) in conn.execute("SELECT DISTINCT proname FROM pg_proc WHERE pg_function_is_visible(oid)").fetchall()
    ]
    if re.search(r"\b(min|max)\(boolean\)", message):
        return "Of booleans there are bool_or(…), whether one is true, and bool_and(…), whether all are."
    if called[1] in names:
        return _CAST
    close = closest(called[1], names, cutoff=0.75)
    if close:
        return f"Did you mean {close}?"
    return "Postgres has no function of this name; one of yours is written with its schema, and must be IMMUTABLE."
