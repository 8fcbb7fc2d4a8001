"""Remedies for a query that Postgres refuses, by SQLSTATE."""

from __future__ import annotations

import re

import psycopg

from refold.suggest import closest

_CAST = "Cast a value from metadata to the type that you mean: (metadata ->> 'amount')::numeric."
_REMEDIES: dict[type[psycopg.Error], str] = {
    psycopg.errors.GroupingError: "Add it to GROUP BY, or aggregate it: min(…), max(…), count(…).",
    psycopg.errors.DatatypeMismatch: "Cast both sides to the same type.",
    psycopg.errors.CannotCoerce: "Cast it to text first: (…)::text::numeric.",
    psycopg.errors.UndefinedObject: "Check the type's name; common types are text, numeric, bigint, date and boolean.",
    psycopg.errors.AmbiguousColumn: "Qualify the column: alias.column.",
    psycopg.errors.InvalidTextRepresentation: "Write the value in the format of its type.",
    psycopg.errors.InvalidDatetimeFormat: "Write it as 2026-01-31, or 2026-01-31 12:00:00+00.",
}


def remedy_of(conn: psycopg.Connection, error: psycopg.Error) -> str:
    """Return the remedy for the author of a refused query.

    Args:
        conn: the caller's transaction, which has been rolled back to before the error.
        error: the error of Postgres.
    """
    if isinstance(error, psycopg.errors.UndefinedFunction):
        return _function(conn, error.diag.message_primary or "")
    for kind, remedy in _REMEDIES.items():
        if isinstance(error, kind):
            return remedy
    return error.diag.message_hint or "Try the SELECT in psql: it must run there unchanged."


def _function(conn: psycopg.Connection, message: str) -> str:
    """Return the remedy for a function or operator that does not exist, or not for these types."""
    called = re.match(r"function (?:\w+\.)?(\w+)\(", message)
    if called is None:
        return _CAST
    names = [
        str(name)
        for (name,) in conn.execute("SELECT DISTINCT proname FROM pg_proc WHERE pg_function_is_visible(oid)").fetchall()
    ]
    if re.search(r"\b(min|max)\(boolean\)", message):
        return "For booleans use bool_or(…) (is any true?) or bool_and(…) (are all true?)."
    if called[1] in names:
        return _CAST
    close = closest(called[1], names, cutoff=0.75)
    if close:
        return f"Did you mean {close}?"
    return "Postgres has no function of this name. Write your own function with its schema; it must be IMMUTABLE."
