"""Retries of whole transactions, where `refold.postgres.sqlstate` says that they may succeed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import psycopg
from tenacity import (
    Retrying,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_random,
    wait_random_exponential,
)

from refold.errors import OnStandby
from refold.postgres.sqlstate import transient

T = TypeVar("T")


def away(error: BaseException) -> bool:
    """Return whether the primary is unavailable: the error is transient, or a standby answers during a failover.

    Whoever begins on a standby was sent to the wrong server; later on it is a failover, which comes to an end.
    """
    return transient(error) or isinstance(error, OnStandby)


def retrying(seconds: float = 60.0, *, retried: Callable[[BaseException], bool] = transient) -> Retrying:
    """Return attempts with jittered exponential back-off from 20 ms to 2 s, for `seconds` at most."""
    return Retrying(
        retry=retry_if_exception(retried),
        wait=wait_random_exponential(multiplier=0.02, max=2.0),
        stop=stop_after_delay(seconds),
        reraise=True,
    )


def after_deadlocks() -> Retrying:
    """Return five attempts at a transaction that Postgres may cancel to resolve a deadlock."""
    return Retrying(
        retry=retry_if_exception_type(psycopg.errors.DeadlockDetected),
        wait=wait_random(0.05, 0.3),
        stop=stop_after_attempt(5),
        reraise=True,
    )


def in_short_attempts(conn: psycopg.Connection, seconds: float, work: Callable[[], T]) -> T:
    """Run a transaction that needs locks which other transactions may hold.

    It waits 200 ms for each lock, then rolls back and retries, because all later lock requests would queue behind it.

    Args:
        conn: in autocommit mode.
        seconds: longest time to try.
        work: function to run in the transaction; it may run several times.

    Raises:
        psycopg.errors.LockNotAvailable: another transaction held a lock all the time.
    """
    attempts = Retrying(
        retry=retry_if_exception_type((psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)),
        wait=wait_random(0.05, 0.3),
        stop=stop_after_delay(seconds),
        reraise=True,
    )
    for attempt in attempts:
        with attempt, conn.transaction():
            conn.execute("SET LOCAL lock_timeout = '200ms'")
            return work()
    raise AssertionError("unreachable: the retries end with a return or an exception")
