"""Errors as the user reads them: a message, and a remedy."""

from __future__ import annotations

import psycopg
from rich.text import Text

from refold.cli.output import err
from refold.errors import Mistakes, RefoldError
from refold.prose import room, wrapped
from refold.visible import visible

_MISSING = (psycopg.errors.UndefinedFunction, psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn)


_FATAL = "FATAL:"
_AGAIN = "The server may be restarting. Committed work is kept; run the command again to continue."
_SESSION = "Check the database's name, the user and the password in --database-url (or REFOLD_DATABASE_URL)."
_BROKE = ("consuming input failed", "sending query failed", "the connection is closed", "the connection is lost")
_ROLES = (
    "GRANT this login the role it needs: refold_producer appends events, refold_worker updates metrics, "
    "refold_analyst reads them, refold_owner owns the log. After a restore without privileges: `refold migrate`."
)
_ENDED = (
    psycopg.errors.AdminShutdown,
    psycopg.errors.CrashShutdown,
    psycopg.errors.CannotConnectNow,
    psycopg.errors.IdleSessionTimeout,
)


def complain(error: RefoldError | psycopg.Error) -> None:
    """Write an error and its remedy to stderr; several errors are written one by one."""
    if isinstance(error, Mistakes):
        for one in error.errors:
            complain(one)
        return
    message, remedy = describe(error)
    _tell("error: ", "bold red", message)
    if remedy:
        _tell("  try: ", "bold", remedy)


def _tell(label: str, style: str, text: str) -> None:
    """Write a labelled text to stderr; further lines are indented, so none of them looks like another message."""
    told = wrapped(label + visible(text, lines=True).replace("\n", "\n    "), room(err.width), indent=4)
    err.print(Text.assemble((label, style), told[len(label) :]), soft_wrap=True)


def describe(error: RefoldError | psycopg.Error) -> tuple[str, str | None]:
    """Return an error's message and remedy. Neither contains a password."""
    if isinstance(error, RefoldError):
        return str(error), error.remedy
    diagnosis = error.diag
    if diagnosis.message_primary is None:
        return _unreachable(error)
    message = diagnosis.message_primary
    if diagnosis.message_detail:
        message += f" ({diagnosis.message_detail.rstrip('.')})"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return message, diagnosis.message_hint or _ROLES
    if isinstance(error, _MISSING) and "refold." in message:
        return message, "The schema is older than this version of refold: run `refold migrate`."
    if isinstance(error, _ENDED):
        return message, _AGAIN
    if isinstance(error, psycopg.errors.QueryCanceled):
        return message, diagnosis.message_hint or "The server's statement_timeout cancelled it: raise it for this role."
    return message, diagnosis.message_hint


def _unreachable(error: psycopg.Error) -> tuple[str, str | None]:
    """Return the message and remedy of libpq's own errors, which have no SQLSTATE and a line for each address."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = lines[0] if lines else type(error).__name__
    if not isinstance(error, psycopg.OperationalError):
        return message, None
    refused = message.partition(_FATAL)[2].strip()
    if refused:
        # Without an SQLSTATE, the text is all there is; where it is another language's, the advice is the general one.
        advice = _AGAIN if "starting up" in refused or "shutting down" in refused else _SESSION
        return f"the server refused the connection: {refused}", advice
    if any(sign in message for sign in _BROKE):
        return f"the connection broke: {message}", _AGAIN
    return (
        f"cannot reach the database: {message}",
        "Check --database-url (or REFOLD_DATABASE_URL), and that the server runs. Without a URL, refold uses "
        "its embedded server.",
    )
