"""What an error means for what comes next, as a table."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from refold.model.projection.failure import FunctionFailed
from refold.postgres.sqlstate import (
    EVENT_CLASSES,
    TRANSIENT_CLASSES,
    TRANSIENT_STATES,
    caused_by_event,
    transient,
)

TRANSIENT = [
    psycopg.OperationalError("the connection is lost"),
    errors.AdminShutdown(),
    errors.CannotConnectNow(),
    errors.ConnectionFailure(),
    errors.CrashShutdown(),
    errors.DeadlockDetected(),
    errors.DiskFull(),
    errors.IdleInTransactionSessionTimeout(),
    errors.IdleSessionTimeout(),
    errors.LockNotAvailable(),
    errors.OutOfMemory(),
    errors.ReadOnlySqlTransaction(),
    errors.SerializationFailure(),
    errors.TooManyConnections(),
]
CAUSED_BY_EVENT = [
    errors.CardinalityViolation(),
    errors.DivisionByZero(),
    errors.ExternalRoutineException(),
    errors.ExternalRoutineInvocationException(),
    errors.InvalidTextRepresentation(),
    errors.ProgramLimitExceeded(),
    errors.RaiseException(),
    errors.UniqueViolation(),
    psycopg.DataError("refused before it was sent"),
    FunctionFailed(KeyError("price")),
    UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
]
NEITHER = [
    errors.InsufficientPrivilege(),
    errors.QueryCanceled(),
    errors.TransactionTimeout(),
    errors.UndefinedFunction(),
    errors.InFailedSqlTransaction(),
    psycopg.ProgrammingError("more placeholders than parameters"),
    KeyError("a mistake of ours"),
    MemoryError(),
]


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        *((error, (True, False)) for error in TRANSIENT),
        *((error, (False, True)) for error in CAUSED_BY_EVENT),
        *((error, (False, False)) for error in NEITHER),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_an_error_means(error: Exception, meaning: tuple[bool, bool]) -> None:
    assert (transient(error), caused_by_event(error)) == meaning


def test_no_error_means_both() -> None:
    assert not EVENT_CLASSES & (TRANSIENT_CLASSES | {state[:2] for state in TRANSIENT_STATES})
