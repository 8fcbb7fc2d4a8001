"""What an error means for what comes next: run the same again, or look for the event that causes it.

| SQLSTATE            | what it is                                               | meaning          |
|---------------------|----------------------------------------------------------|------------------|
| none                | libpq's own: the connection could not be made, or broke  | transient        |
| 08, 53              | the connection broke; the server is full                 | transient        |
| 40                  | serialization failure, deadlock                          | transient        |
| 55P03               | a lock was not to be had in time                         | transient        |
| 57P01-03, 57P05     | the server ends sessions, starts, or goes away           | transient        |
| 25P03               | the transaction was idle for too long                    | transient        |
| 25006               | the server only reads: another is to be the primary      | transient        |
| 21, 22, 23          | cardinality, data, integrity                             | caused by event  |
| 38, 39, P0          | what functions raise                                     | caused by event  |
| 54                  | a value, a row or an expression is too large             | caused by event  |
| everything else     | a mistake in a query, a missing right, a cancelled query | neither          |
"""

from __future__ import annotations

import psycopg

from refold.model.projection.failure import FunctionFailed

TRANSIENT_CLASSES = frozenset({"08", "40", "53"})
TRANSIENT_STATES = frozenset({"25006", "25P03", "55P03", "57P01", "57P02", "57P03", "57P05"})
EVENT_CLASSES = frozenset({"21", "22", "23", "38", "39", "54", "P0"})
"""What an event's content can cause."""


def transient(error: BaseException) -> bool:
    """Whether the same transaction may succeed when it is run again from its start. Pure."""
    if not isinstance(error, psycopg.Error):
        return False
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError)
    return state[:2] in TRANSIENT_CLASSES or state in TRANSIENT_STATES


def caused_by_event(error: BaseException) -> bool:
    """Whether one of the events may have caused an error. Pure.

    Otherwise it is the database's (it is away, full, or wants a retry) or the projection's (a table or right is
    missing).
    """
    if isinstance(error, psycopg.Error):
        if error.sqlstate is not None:
            return error.sqlstate[:2] in EVENT_CLASSES
        # Refused before it was sent.
        return isinstance(error, psycopg.DataError)
    return isinstance(error, FunctionFailed | UnicodeEncodeError)
